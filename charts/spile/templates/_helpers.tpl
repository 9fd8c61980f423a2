{{- define "spile.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{/* Prefix of every object's name: "spile" for a release of that name. */}}
{{- define "spile.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains (include "spile.name" .) .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "spile.name" .) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "spile.webhook" -}}
{{ include "spile.fullname" . }}-webhook
{{- end -}}

{{- define "spile.secret" -}}
{{ include "spile.webhook" . }}-cert
{{- end -}}

{{- define "spile.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{ .Values.serviceAccount.name | default (include "spile.webhook" .) }}
{{- else -}}
{{ .Values.serviceAccount.name | required "serviceAccount.name is required where serviceAccount.create is false" }}
{{- end -}}
{{- end -}}

{{- define "spile.selectorLabels" -}}
app.kubernetes.io/name: {{ include "spile.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: webhook
{{- end -}}

{{- define "spile.labels" -}}
{{ include "spile.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Image reference of (list image root). */}}
{{- define "spile.image" -}}
{{- $image := index . 0 -}}
{{- $root := index . 1 -}}
{{- with $image.registry }}{{ . }}/{{ end -}}
{{ $image.repository }}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ $image.tag | default $root.Chart.AppVersion }}{{ end -}}
{{- end -}}

{{/* Variables that say where spans go, as JSON, of a block such as .Values.otlp. */}}
{{- define "spile.destination" -}}
{{- $env := dict
  "OTEL_EXPORTER_OTLP_ENDPOINT" .endpoint
  "OTEL_EXPORTER_OTLP_PROTOCOL" (.protocol | default "http/protobuf") -}}
{{- with .compression }}{{ $_ := set $env "OTEL_EXPORTER_OTLP_COMPRESSION" . }}{{ end -}}
{{- with .timeout }}{{ $_ := set $env "OTEL_EXPORTER_OTLP_TIMEOUT" (int . | toString) }}{{ end -}}
{{- with .temporality }}{{ $_ := set $env "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE" . }}{{ end -}}
{{- $headers := list -}}
{{- range $name, $value := .headers -}}
{{- $headers = append $headers (printf "%s=%s" $name ($value | urlquery | replace "+" "%20")) -}}
{{- end -}}
{{- with $headers }}{{ $_ := set $env "OTEL_EXPORTER_OTLP_HEADERS" (join "," .) }}{{ end -}}
{{- toJson $env -}}
{{- end -}}

{{/* Variables of what the sidecars make and measure, as JSON. */}}
{{- define "spile.telemetry" -}}
{{- $env := dict -}}
{{- with .Values.sidecar.traces -}}
{{- with .sampler }}{{ $_ := set $env "OTEL_TRACES_SAMPLER" . }}{{ end -}}
{{- if not (kindIs "invalid" .samplerArgument) }}{{ $_ := set $env "OTEL_TRACES_SAMPLER_ARG" (.samplerArgument | toString) }}{{ end -}}
{{- with .propagators }}{{ $_ := set $env "OTEL_PROPAGATORS" (join "," .) }}{{ end -}}
{{- with .exclude }}{{ $_ := set $env "SPILE_EXCLUDE" (join "," .) }}{{ end -}}
{{- with .optInAttributes }}{{ $_ := set $env "SPILE_OPT_IN_ATTRIBUTES" (join "," .) }}{{ end -}}
{{- with .routes.unmatched }}{{ $_ := set $env "SPILE_ROUTES_UNMATCHED" . }}{{ end -}}
{{- end -}}
{{- with .Values.sidecar.metrics -}}
{{- with .exporter }}{{ $_ := set $env "OTEL_METRICS_EXPORTER" . }}{{ end -}}
{{- with .interval }}{{ $_ := set $env "OTEL_METRIC_EXPORT_INTERVAL" (int . | toString) }}{{ end -}}
{{- if eq .exporter "prometheus" }}
{{- $_ := set $env "OTEL_EXPORTER_PROMETHEUS_HOST" "0.0.0.0" -}}
{{- with .port }}{{ $_ := set $env "OTEL_EXPORTER_PROMETHEUS_PORT" (int . | toString) }}{{ end -}}
{{- end -}}
{{- end -}}
{{- toJson $env -}}
{{- end -}}

{{/* Environment of every sidecar, as JSON. */}}
{{- define "spile.env" -}}
{{- $_ := .Values.otlp.endpoint | required "otlp.endpoint is required: the URL of an OTLP receiver, such as http://tempo.monitoring:4318" -}}
{{- $env := merge (include "spile.destination" .Values.otlp | fromJson) (include "spile.telemetry" . | fromJson) -}}
{{- range .Values.sidecar.env }}{{ $_ := set $env .name .value }}{{ end -}}
{{- toJson $env -}}
{{- end -}}

{{/* What the webhook adds to pods: the file it reads. */}}
{{- define "spile.sidecar" -}}
{{- $env := include "spile.env" . | fromJson -}}
image: {{ include "spile.image" (list .Values.sidecar.image .) | quote }}
imagePullPolicy: {{ .Values.sidecar.image.pullPolicy }}
resources: {{ toJson .Values.sidecar.resources }}
env:
{{- range $name, $value := $env }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- with .Values.otlp.files }}
files: {{ toJson . }}
{{- end }}
{{- with .Values.otlp.namespaces }}
namespaces:
{{- range $namespace, $block := . }}
  {{ $namespace | quote }}:
    env:
    {{- range $name, $value := include "spile.destination" $block | fromJson }}
    - name: {{ $name }}
      value: {{ $value | quote }}
    {{- end }}
    {{- with $block.files }}
    files: {{ toJson . }}
    {{- end }}
{{- end }}
{{- end }}
{{- with .Values.sidecar.resourceAttributes }}
resourceAttributes: {{ toJson . }}
{{- end }}
serviceNameFromLabels: {{ .Values.sidecar.serviceNameFromLabels }}
{{- with .Values.webhook.podSecurityDefault }}
podSecurityDefault: {{ . }}
{{- end }}
{{- with .Values.webhook.namespaceSelector }}
namespaceSelector: {{ toJson . }}
{{- end }}
{{- with .Values.webhook.objectSelector }}
objectSelector: {{ toJson . }}
{{- end }}
{{- end -}}
