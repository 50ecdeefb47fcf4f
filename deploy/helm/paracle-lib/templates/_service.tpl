{{/*
All resources of one service. A service's chart includes this once and says the rest in its values.
The values of this library are the defaults; `paracle-lib.values` merges them.
*/}}
{{- define "paracle-lib.service" -}}
{{- $own := omit .Values "paracle-lib" "global" -}}
{{- $values := mergeOverwrite (deepCopy (index .Values "paracle-lib" | default dict)) (deepCopy $own) -}}
{{- $context := dict "Values" $values "Chart" .Chart "Release" .Release "global" (.Values.global | default dict) -}}
{{ include "paracle-lib.serviceaccount" $context }}
---
{{ include "paracle-lib.deployment" $context }}
---
{{ include "paracle-lib.k8s-service" $context }}
{{- if and $values.podDisruptionBudget.enabled (gt (int $values.replicas) 1) }}
---
{{ include "paracle-lib.pdb" $context }}
{{- end }}
{{- range $pool, $own := $values.pools }}
---
{{ include "paracle-lib.pool" (dict "context" $context "pool" $pool "own" $own) }}
{{- end }}
{{- if $values.provision.enabled }}
---
{{ include "paracle-lib.provision" $context }}
{{- end }}
{{- end }}

{{/* Pods that serve one worker pool: those of the service but for what is said of the pool. */}}
{{- define "paracle-lib.pool" -}}
{{- if ne .context.Chart.Name "agent-runtime" }}
{{- fail (printf "%s: pools belong to agent-runtime" .context.Chart.Name) }}
{{- end }}
{{- $served := printf "%s%s" .pool (empty .own.concurrency | ternary "" (printf "=%v" .own.concurrency)) -}}
{{- $own := mergeOverwrite (deepCopy (omit .own "concurrency")) (dict "env" (mergeOverwrite (deepCopy (.own.env | default dict)) (dict "PARACLE_POOLS" $served))) -}}
{{- $values := mergeOverwrite (deepCopy .context.Values) $own -}}
{{- $context := mergeOverwrite (omit .context "Values") (dict "Values" $values "pool" (.pool | replace "_" "-")) -}}
{{ include "paracle-lib.deployment" $context }}
{{- if and $values.podDisruptionBudget.enabled (gt (int $values.replicas) 1) }}
---
{{ include "paracle-lib.pdb" $context }}
{{- end }}
{{- end }}

{{- define "paracle-lib.account" -}}
{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* Of what is made for one worker pool, it has the pool's at its end. */}}
{{- define "paracle-lib.name" -}}
{{- $pool := "" -}}
{{- with .pool }}{{- $pool = printf "-%s" . }}{{- end -}}
{{ printf "%s-%s%s" .Release.Name .Chart.Name $pool | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "paracle-lib.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}{{ with .pool }}-{{ . }}{{ end }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "paracle-lib.labels" -}}
{{ include "paracle-lib.selector" . }}
app.kubernetes.io/part-of: paracle
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "paracle-lib.image" -}}
{{- $image := .Values.image -}}
{{- $prefix := .global.imagePrefix | default $image.prefix -}}
{{- $name := $image.name | default (printf "paracle-%s" .Chart.Name) -}}
{{- $tag := $image.tag | default .global.imageTag | default .Chart.AppVersion -}}
{{- if $prefix }}{{ $prefix }}/{{ end }}{{ $name }}:{{ $tag }}
{{- end }}

{{- define "paracle-lib.serviceaccount" -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ include "paracle-lib.name" . }}
  labels: {{- include "paracle-lib.labels" . | nindent 4 }}
automountServiceAccountToken: false
{{- end }}

{{- define "paracle-lib.k8s-service" -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ include "paracle-lib.name" . }}
  labels: {{- include "paracle-lib.labels" . | nindent 4 }}
spec:
  selector: {{- include "paracle-lib.selector" . | nindent 4 }}
  ports:
    - name: {{ .Values.health.portName }}
      port: {{ .Values.health.port }}
      targetPort: {{ .Values.health.portName }}
    {{- range .Values.ports }}
    - name: {{ .name }}
      port: {{ .port }}
      targetPort: {{ .name }}
    {{- end }}
{{- end }}

{{- define "paracle-lib.pdb" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "paracle-lib.name" . }}
  labels: {{- include "paracle-lib.labels" . | nindent 4 }}
spec:
  maxUnavailable: {{ .Values.podDisruptionBudget.maxUnavailable }}
  selector:
    matchLabels: {{- include "paracle-lib.selector" . | nindent 6 }}
{{- end }}
