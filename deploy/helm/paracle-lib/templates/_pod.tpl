{{/* The pods of a service, and the job that provisions for it: same image, same rights, same environment. */}}
{{- define "paracle-lib.deployment" -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ include "paracle-lib.name" . }}
  labels: {{- include "paracle-lib.labels" . | nindent 4 }}
spec:
  replicas: {{ .Values.replicas }}
  selector:
    matchLabels: {{- include "paracle-lib.selector" . | nindent 6 }}
  template:
    metadata:
      labels: {{- include "paracle-lib.labels" . | nindent 8 }}
      {{- with .Values.podAnnotations }}
      annotations: {{- toYaml . | nindent 8 }}
      {{- end }}
    spec:
      serviceAccountName: {{ include "paracle-lib.account" . }}
      terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}
      topologySpreadConstraints:
        - maxSkew: 1
          topologyKey: kubernetes.io/hostname
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels: {{- include "paracle-lib.selector" . | nindent 14 }}
      {{- include "paracle-lib.pod" . | nindent 6 }}
      containers:
        - name: service
          {{- include "paracle-lib.container" . | nindent 10 }}
          env: {{- include "paracle-lib.env" . | nindent 12 }}
          {{- with .Values.secretRefs }}
          envFrom:
            {{- range . }}
            - secretRef: { name: {{ . }} }
            {{- end }}
          {{- end }}
          ports:
            - name: {{ .Values.health.portName }}
              containerPort: {{ .Values.health.port }}
            {{- range .Values.ports }}
            - name: {{ .name }}
              containerPort: {{ .port }}
            {{- end }}
          startupProbe:
            httpGet: { path: /readyz, port: {{ .Values.health.portName }} }
            periodSeconds: 1
            failureThreshold: 60
          livenessProbe:
            httpGet: { path: /livez, port: {{ .Values.health.portName }} }
            periodSeconds: 10
            timeoutSeconds: 3
          readinessProbe:
            httpGet: { path: /readyz, port: {{ .Values.health.portName }} }
            periodSeconds: 5
            timeoutSeconds: 3
          resources: {{- toYaml .Values.resources | nindent 12 }}
{{- end }}

{{- define "paracle-lib.provision" -}}
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ include "paracle-lib.name" . }}-provision
  labels: {{- include "paracle-lib.labels" . | nindent 4 }}
  annotations:
    helm.sh/hook: pre-install,pre-upgrade
    helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
spec:
  backoffLimit: 5
  activeDeadlineSeconds: 300
  template:
    metadata:
      labels: # not those of the service, whose selector must not find this pod
        app.kubernetes.io/name: {{ .Chart.Name }}-provision
        app.kubernetes.io/instance: {{ .Release.Name }}
    spec:
      # The service's own account does not exist yet when this runs.
      serviceAccountName: default
      restartPolicy: OnFailure
      {{- $bare := set (omit . "Values") "Values" (omit .Values "keyFiles") }}
      {{- include "paracle-lib.pod" $bare | nindent 6 }}
      containers:
        - name: provision
          {{- include "paracle-lib.container" $bare | nindent 10 }}
          command: [python, -m, paracle_chassis.provision]
          args:
            - --services={{ .Chart.Name | replace "-" "_" }}
            {{- with .Values.pools }}
            - --pools={{ keys . | sortAlpha | join "," }}
            {{- end }}
            {{- with .Values.provision.args }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          env: {{- include "paracle-lib.provision-env" . | nindent 12 }}
{{- end }}

{{/* What both have in common on the level of the pod. */}}
{{- define "paracle-lib.pod" -}}
automountServiceAccountToken: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  seccompProfile: { type: RuntimeDefault }
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
volumes:
  - name: tmp
    emptyDir: { sizeLimit: 256Mi }
{{- with .Values.keyFiles }}
{{- if ne $.Chart.Name "provider-gateway" }}
{{- fail (printf "%s: keyFiles belong to provider-gateway" $.Chart.Name) }}
{{- end }}
  - name: keys
    projected:
      sources:
        {{- range . }}
        - secret:
            name: {{ .secret }}
            {{- if .keys }}
            {{- $tenant := .tenant }}
            items:
              {{- range .keys }}
              - { key: {{ . | quote }}, path: {{ ternary (printf "%s/%s" $tenant .) . (not (empty $tenant)) | quote }} }
              {{- end }}
            {{- else if .tenant }}
            {{- fail (printf "%s: keyFiles of the tenant %s: name the keys of the secret" $.Chart.Name .tenant) }}
            {{- end }}
        {{- end }}
{{- end }}
{{- end }}

{{/* … and on that of the container. */}}
{{- define "paracle-lib.container" -}}
image: {{ include "paracle-lib.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: { drop: [ALL] }
volumeMounts:
  - name: tmp
    mountPath: /tmp
{{- if .Values.keyFiles }}
  - name: keys
    mountPath: /keys
    readOnly: true
{{- end }}
{{- end }}

{{- define "paracle-lib.nats-env" -}}
{{- $nats := mergeOverwrite (deepCopy .Values.nats) (.global.nats | default dict) -}}
- name: PARACLE_NATS_URL
  {{- if $nats.existingSecret }}
  valueFrom:
    secretKeyRef: { name: {{ $nats.existingSecret }}, key: {{ $nats.key }} }
  {{- else }}
  value: {{ $nats.url | quote }}
  {{- end }}
{{- with $nats.inbox }}
- name: PARACLE_NATS_INBOX
  value: {{ . | quote }}
{{- end }}
- name: PARACLE_NATS_REPLICAS
  value: {{ $nats.replicas | quote }}
{{- end }}

{{/* Only the job sees the role that may create databases and roles. */}}
{{- define "paracle-lib.provision-env" -}}
{{ include "paracle-lib.nats-env" . }}
{{- if .Values.postgres.enabled }}
{{- $secret := .Values.provision.existingSecret | default .global.provisionSecret }}
{{- $secret = required (printf "%s: provision.existingSecret is required: the secret with admin-dsn and password" .Chart.Name) $secret }}
- name: PARACLE_POSTGRES_ADMIN_DSN
  valueFrom:
    secretKeyRef: { name: {{ $secret }}, key: admin-dsn }
- name: PARACLE_POSTGRES_PASSWORD
  valueFrom:
    secretKeyRef: { name: {{ $secret }}, key: password, optional: true }
{{- end }}
{{- end }}

{{- define "paracle-lib.env" -}}
{{ include "paracle-lib.nats-env" . }}
{{- if .Values.postgres.enabled }}
- name: PARACLE_POSTGRES_DSN
  valueFrom:
    secretKeyRef:
      name: {{ required (printf "%s: postgres.existingSecret is required: the secret with the DSN of this service's database" .Chart.Name) .Values.postgres.existingSecret }}
      key: {{ .Values.postgres.key }}
{{- end }}
- name: PARACLE_HEALTH_HOST
  value: 0.0.0.0
- name: PARACLE_HEALTH_PORT
  value: {{ .Values.health.port | quote }}
- name: PARACLE_LOG_LEVEL
  value: {{ .Values.logLevel }}
{{- with .global.otlpEndpoint | default .Values.otlpEndpoint }}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ . | quote }}
{{- end }}
{{- with .Values.memoryCeilingMb }}
- name: PARACLE_MEMORY_CEILING_MB
  value: {{ . | quote }}
{{- end }}
{{- if .Values.keyFiles }}
- name: PARACLE_PROVIDER_KEYS_DIR
  value: /keys
{{- end }}
{{- range $name, $value := .Values.env }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}
