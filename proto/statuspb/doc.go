// Package statuspb is the service thanos.Status, which tells what takes room in databases.
package statuspb
