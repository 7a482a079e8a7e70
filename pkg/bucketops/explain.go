package bucketops

// Explanation says what a kind of fault means.
type Explanation struct {
	Severity Severity `json:"severity"`
	// Meaning is what it means for whoever reads the data.
	Meaning string `json:"meaning"`
	// Mend is what to do, with the command where there is one; <id> stands for the block.
	Mend string `json:"mend"`
}

const (
	mendRepair  = "koios tools bucket verify --repair --id=<id> --objstore-backup.config-file=<backup> writes what is readable into a new block; or upload the block again from where it was made"
	mendReplace = "upload the block again from where it was made, or let it go: koios tools bucket mark --id=<id> --marker=deletion-mark.json --details=<why>"
	mendCleanup = "koios tools bucket cleanup"
	mendNothing = "nothing: the compactor does"
)

// explanations is the table of what each kind means.
var explanations = map[Kind]Explanation{
	KindPartial:       {SeverityNote, "There is no meta.json, so nobody reads the block: its upload is under way, or ended before its time.", "wait for the uploader; what is older than 48 hours goes with " + mendCleanup},
	KindHalfDeleted:   {SeverityNote, "The meta.json is gone and the deletion mark is still there: a deletion ended before its time. Nobody reads the block.", mendCleanup},
	KindMetaMalformed: {SeverityError, "The meta.json can't be read, so the block is passed over: its data is missing in answers.", mendReplace},
	KindMetaVersion:   {SeverityError, "The meta.json has a version that this program does not know, so the block is passed over. A newer writer may have made it.", "run a version that knows it; cleanup leaves the block alone"},
	KindMetaOther:     {SeverityError, "The meta.json is that of another block, so the block is passed over.", mendReplace},
	KindUnreadable:    {SeverityError, "The object storage did not give what was asked for, so nothing is known about the block.", "look at the error, and run this again"},
	KindMarkMalformed: {SeverityWarning, "A mark can't be read and counts as none.", "koios tools bucket mark --remove --id=<id> --marker=<mark>, then mark again if it is wanted"},
	KindNoLabels:      {SeverityWarning, "The block has no external labels, so it can't be told whose data it is, and it is merged with all that have none either.", "koios tools bucket upload-blocks --label=... from where it was made, then mark this one for deletion"},
	KindFuture:        {SeverityWarning, "The block ends in the future: a clock was ahead. Retention keeps it that much longer.", "mend the clock of its writer; koios tools bucket mark lets the block go"},
	KindEmptyBlock:    {SeverityNote, "The block has no samples.", mendNothing},
	KindSetAside:      {SeverityError, "The compactor could not read the block and left it out. It is served as far as it can be read.", mendRepair},
	KindOverdue:       {SeverityNote, "The block was marked for deletion long ago and is still there: no compactor deletes in this bucket.", mendCleanup},

	KindFileMissing: {SeverityError, "A file that meta.json lists is not there: the data in it is lost for readers.", mendReplace},
	KindFileSize:    {SeverityError, "A file has another length than meta.json says: it is not the one that was uploaded.", mendRepair},
	KindStray:       {SeverityNote, "An object lies in the block that does not belong to it. Nobody reads it; it is deleted with the block.", "nothing"},

	KindIndexMissing:    {SeverityError, "There is no index, so nothing of the block can be read.", mendReplace},
	KindIndexTruncated:  {SeverityError, "The index is cut off: nothing, or only a part, of the block can be read.", mendReplace},
	KindIndexChecksum:   {SeverityError, "Bytes of the index are not those that were written.", mendRepair},
	KindIndexMalformed:  {SeverityError, "The index holds what no writer writes.", mendRepair},
	KindIndexVersion:    {SeverityError, "The index has a version other than 2, which is the one that is compacted.", mendReplace},
	KindSeriesUnsorted:  {SeverityError, "Series or labels in the index are not sorted, or there twice: readers miss some of them.", mendRepair},
	KindSeriesEmpty:     {SeverityWarning, "A series has no labels or no chunks.", mendRepair},
	KindPostings:        {SeverityError, "A posting list is not sorted or its checksum is wrong: selectors miss series.", mendRepair},
	KindPostingsSeries:  {SeverityError, "Posting lists name other series than there are: selectors find wrong series or miss some.", mendRepair},
	KindGiantLabel:      {SeverityWarning, "A label is longer than 64 KiB: every request that touches it carries it.", "drop it where it is scraped; koios tools bucket rewrite --id=<id> --rewrite.to-relabel-config=... shortens what is stored"},
	KindChunkDisorder:   {SeverityError, "Chunks of a series overlap or are not in order of time: Thanos's compactor halts on it, and readers may miss samples.", mendRepair + "; Koios's compactor puts them in order"},
	KindChunkTwice:      {SeverityWarning, "A series has the same chunk twice.", mendRepair + "; Koios's compactor drops one"},
	KindChunkOutside:    {SeverityError, "Chunks hold times outside of the block's: queries for these times don't look into it.", mendRepair},
	KindStats:           {SeverityWarning, "The block holds other numbers of series, chunks or samples than its meta.json says.", mendRepair},
	KindChunksMissing:   {SeverityError, "A file of chunks is not there: queries for its series fail.", mendRepair},
	KindChunksTruncated: {SeverityError, "A file of chunks is cut off: queries for the series at its end fail.", mendRepair},
	KindChunksChecksum:  {SeverityError, "Bytes of a chunk are not those that were written.", mendRepair},
	KindChunkMalformed:  {SeverityError, "A chunk can't be decoded, though its checksum is right: it was written wrong.", mendRepair},
	KindChunkTimes:      {SeverityError, "The index says other times of a chunk than its samples have: queries miss them.", mendReplace},

	KindSameBytes:     {SeverityNote, "Two blocks have the same content under two ids.", mendNothing + ", where files have checksums; or koios tools bucket mark --id=<id> --marker=deletion-mark.json --details=duplicate"},
	KindContained:     {SeverityNote, "All that the block was made of is in another one.", mendNothing},
	KindOverlapShared: {SeverityWarning, "Blocks overlap, and a part of what they were made of is the same.", "merge them: koios compact --compact.enable-vertical-compaction, or --deduplication.replica-label"},
	KindOverlapReal:   {SeverityWarning, "Blocks of the same labels overlap with data of their own: two writers have the same external labels, or replicas were merged under one name.", "give each Prometheus labels of its own; koios compact --compact.enable-vertical-compaction merges what is there"},
}

// Explain says what a kind of fault means and what mends it.
func (k Kind) Explain() Explanation { return explanations[k] }
