{{- /* Name of the release's own objects. */ -}}
{{- define "quarterdeck.name" -}}
{{- if contains "quarterdeck" .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-quarterdeck" .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "quarterdeck.serviceAccountName" -}}
{{- default (include "quarterdeck.name" .) .Values.serviceAccount.name -}}
{{- end -}}

{{- /* The user that the replicas are, to whom the manager's rights are bound. */ -}}
{{- define "quarterdeck.user" -}}
system:serviceaccount:{{ .Release.Namespace }}:{{ include "quarterdeck.serviceAccountName" . }}
{{- end -}}

{{- /* What finds the release's pods; it never changes. */ -}}
{{- define "quarterdeck.selector" -}}
app.kubernetes.io/name: quarterdeck
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "quarterdeck.labels" -}}
{{ include "quarterdeck.selector" . }}
app.kubernetes.io/part-of: quarterdeck
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | quote }}
{{- end -}}

{{- /* Name of the Secret with the cloud's settings; empty without. */ -}}
{{- define "quarterdeck.cloudSecret" -}}
{{- if .Values.cloud.existingSecret -}}
{{- .Values.cloud.existingSecret -}}
{{- else if .Values.cloud.config -}}
{{- include "quarterdeck.name" . }}-cloud
{{- end -}}
{{- end -}}

{{- define "quarterdeck.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end -}}
