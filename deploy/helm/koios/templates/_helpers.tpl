{{- define "koios.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}{{- .Release.Name | trunc 50 | trimSuffix "-" -}}{{- else -}}{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}{{- end -}}
{{- end -}}
{{- end -}}

{{- define "koios.image" -}}
{{- $registry := default .Values.image.registry .Values.global.imageRegistry -}}
{{- if $registry }}{{ $registry }}/{{ end }}{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}

{{/* Labels that choose pods: (dict "root" $ "component" "query"). */}}
{{- define "koios.selector" -}}
app.kubernetes.io/name: {{ default .root.Chart.Name .root.Values.nameOverride }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "koios.labels" -}}
{{ include "koios.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end -}}

{{/* YAML that may be given as a map or as text. */}}
{{- define "koios.text" -}}
{{- if kindIs "string" . }}{{ . }}{{ else }}{{ toYaml . }}{{ end -}}
{{- end -}}

{{- define "koios.objstoreSecret" -}}
{{- default (printf "%s-objstore" (include "koios.fullname" .)) .Values.existingObjstoreSecret -}}
{{- end -}}

{{/* What all pods have before their containers: (dict "root" $ "values" .Values.query). */}}
{{- define "koios.pod" -}}
{{- with .root.Values.global.imagePullSecrets }}
imagePullSecrets: {{- range . }}
- name: {{ . }}
{{- end }}
{{- end }}
automountServiceAccountToken: false
terminationGracePeriodSeconds: 150
securityContext: {{- toYaml .values.podSecurityContext | nindent 2 }}
{{- with .values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* What all containers have: (dict "root" $ "values" .Values.query). */}}
{{- define "koios.container" -}}
image: {{ include "koios.image" .root }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
securityContext: {{- toYaml .values.containerSecurityContext | nindent 2 }}
terminationMessagePolicy: FallbackToLogsOnError
livenessProbe: {httpGet: {path: /-/healthy, port: http}, periodSeconds: 30, failureThreshold: 4}
readinessProbe: {httpGet: {path: /-/ready, port: http}, periodSeconds: 5}
{{- with .values.resources }}
resources: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
