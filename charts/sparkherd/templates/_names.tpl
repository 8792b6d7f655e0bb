{{- define "sparkherd.labels" -}}
app.kubernetes.io/name: sparkherd
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "sparkherd.selector" -}}
app.kubernetes.io/name: sparkherd
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "sparkherd.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "sparkherd.keySecret" -}}
{{ .Values.auth.existingSecret | default (printf "%s-key" .Release.Name) }}
{{- end }}

{{- /* Names of cluster-scoped objects carry the namespace, so that two releases do not share them. */}}
{{- define "sparkherd.clusterName" -}}
{{ .Release.Namespace }}-{{ .Release.Name }}
{{- end }}
