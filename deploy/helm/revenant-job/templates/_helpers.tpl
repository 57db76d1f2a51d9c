{{- define "revenant.priorityClass" -}}
{{- get (dict "critical" "long-job-critical" "standard" "long-job" "short" "short-job") .Values.tier -}}
{{- end -}}

{{- define "revenant.check" -}}
{{- if not (has .Values.kind (list "job" "statefulset")) }}{{ fail (printf "kind is %q: use job or statefulset" .Values.kind) }}{{ end -}}
{{- if not (has .Values.tier (list "critical" "standard" "short")) }}{{ fail (printf "tier is %q: use critical, standard or short" .Values.tier) }}{{ end -}}
{{- if not .Values.image }}{{ fail "image is missing: an image with revenant as its ENTRYPOINT" }}{{ end -}}
{{- if not .Values.command }}{{ fail "command is missing: a list, for example [megahit, -1, r1.fq, -2, r2.fq, -o, out]" }}{{ end -}}
{{- if or (le (float64 .Values.memoryGiB) 0.0) (le (float64 .Values.cpus) 0.0) }}{{ fail "memoryGiB and cpus are missing: the expected peak of memory, and cores" }}{{ end -}}
{{- end -}}

{{- /* Which nodes the workload starts on. Only Jobs come in pairs, of which the second continues on high-memory nodes. */ -}}
{{- define "revenant.nodes" -}}
{{- if eq .Values.tier "critical" }}high-memory
{{- else if eq .Values.tier "short" }}ordinary
{{- else if eq .Values.kind "job" }}ordinary-first
{{- else }}high-memory-rather
{{- end -}}
{{- end -}}

{{- define "revenant.grace" -}}
{{- $save := int .Values.saveSeconds -}}
{{- if not $save }}{{ $save = mul 2 (ceil (float64 .Values.memoryGiB)) }}{{ end -}}
{{- max 30 (mul 2 $save) -}}
{{- end -}}

{{- define "revenant.claimGiB" -}}
{{- if .Values.store.claimGiB }}{{ .Values.store.claimGiB }}{{ else }}{{ ceil (mulf 3.0 (float64 .Values.memoryGiB)) | int }}{{ end -}}
{{- end -}}

{{- /* Expected use times so many tenths, rounded up: milli-cores and MiB. */ -}}
{{- define "revenant.cpu" -}}{{ ceil (mulf (float64 .Values.cpus) 100.0 (ternary 10.0 15.0 (eq .Values.tier "short"))) | int }}m{{- end -}}
{{- define "revenant.memory" -}}{{ ceil (mulf (float64 .Values.memoryGiB) 102.4 (ternary 8.0 15.0 (eq .Values.tier "short"))) | int }}Mi{{- end -}}
{{- define "revenant.memoryLimit" -}}{{ ceil (mulf (float64 .Values.memoryGiB) 102.4 12.0) | int }}Mi{{- end -}}

{{- define "revenant.pod" -}}
metadata:
  labels: {app.kubernetes.io/name: revenant-job, app.kubernetes.io/instance: {{ .Release.Name }}}
  annotations:
    # Autoscalers leave it where it is.
    cluster-autoscaler.kubernetes.io/safe-to-evict: "false"
    karpenter.sh/do-not-disrupt: "true"
    prometheus.io/scrape: "true"
    prometheus.io/port: "9102"
spec:
  restartPolicy: {{ ternary "Always" "Never" (eq .Values.kind "statefulset") }}
  serviceAccountName: {{ .Release.Name }}
  priorityClassName: {{ include "revenant.priorityClass" . }}
  # Twice a save: time for one that is under way and for the last one. REVENANT_GRACE below says the same.
  terminationGracePeriodSeconds: {{ include "revenant.grace" . }}
  affinity:
    nodeAffinity:
      {{- if eq .nodes "high-memory" }}
      # Only high-memory nodes.
      requiredDuringSchedulingIgnoredDuringExecution:
        nodeSelectorTerms:
          - matchExpressions: [{key: {{ .Values.highMemoryLabel.name | quote }}, operator: In, values: [{{ .Values.highMemoryLabel.value | quote }}]}]
      {{- else }}
      # Standard jobs begin on ordinary nodes, statefulsets rather on high-memory ones; short jobs leave those to long runs.
      preferredDuringSchedulingIgnoredDuringExecution:
        - weight: 100
          preference:
            matchExpressions: [{key: {{ .Values.highMemoryLabel.name | quote }}, operator: {{ ternary "In" "NotIn" (eq .nodes "high-memory-rather") }}, values: [{{ .Values.highMemoryLabel.value | quote }}]}]
      {{- end }}
    {{- if ne .Values.tier "short" }}
    podAntiAffinity:
      # One long run a node: their peaks do not meet.
      preferredDuringSchedulingIgnoredDuringExecution:
        - weight: 100
          podAffinityTerm:
            topologyKey: kubernetes.io/hostname
            labelSelector: {matchLabels: {app.kubernetes.io/name: revenant-job}}
    {{- end }}
  {{- if eq .nodes "high-memory" }}
  tolerations:
    # If those nodes are kept free by a taint of the same name.
    - {key: {{ .Values.highMemoryLabel.name | quote }}, operator: Equal, value: {{ .Values.highMemoryLabel.value | quote }}, effect: NoSchedule}
  {{- end }}
  {{- if eq .nodes "ordinary-first" }}
  initContainers:
    # Has an earlier pod been killed or evicted for want of memory? Then this Job is put to rest (parallelism 0) and the one
    # for high-memory nodes is woken.
    - name: place
      image: {{ .Values.image | quote }}
      command: [/opt/revenant/bin/revenant, promote, --to, {{ .Release.Name }}-high-memory]
      terminationMessagePolicy: FallbackToLogsOnError
      env:
        - {name: REVENANT_POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
  {{- end }}
  containers:
    - name: job
      # revenant is the image's ENTRYPOINT: the command comes as args. A `command:` here would replace revenant.
      image: {{ .Values.image | quote }}
      args: {{ toJson .Values.command }}
      env:
        - {name: REVENANT_STORE, value: {{ default "file:///checkpoints" .Values.store.url | quote }}}
        - {name: REVENANT_JOB, value: {{ .Release.Name | quote }}}
        - {name: REVENANT_GRACE, value: "{{ include "revenant.grace" . }}s"}
        - {name: REVENANT_EVERY, value: {{ .Values.every | quote }}}
        - {name: REVENANT_HTTP, value: "0.0.0.0:9102"}
        # The same pod cannot run a container twice at once: a restart need not wait for a lease.
        - {name: REVENANT_POD_UID, valueFrom: {fieldRef: {fieldPath: metadata.uid}}}
        - {name: REVENANT_POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        - {name: REVENANT_POD_NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
        - {name: REVENANT_NODE_NAME, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
        {{- if eq .nodes "ordinary-first" }}
        # Out of memory here: the next pod moves on, instead of going back in a container that is too small.
        - {name: REVENANT_ON_OOM, value: exit}
        {{- end }}
        {{- if .Values.keySecret }}
        # Checkpoints hold all that the job has in memory, secrets too.
        - {name: REVENANT_KEY_FILE, value: /run/secrets/revenant/key}
        {{- end }}
      {{- if .Values.store.secret }}
      envFrom:
        - secretRef: {name: {{ .Values.store.secret | quote }}}
      {{- end }}
      ports:
        - {name: revenant, containerPort: 9102}
      # A restore of a large checkpoint takes a while: until it is over, no other probe asks.
      startupProbe:
        httpGet: {path: /startupz, port: revenant}
        periodSeconds: 10
        failureThreshold: 360
      livenessProbe:
        httpGet: {path: /livez, port: revenant}
        periodSeconds: 20
        timeoutSeconds: 10
        failureThreshold: 6
      readinessProbe:
        httpGet: {path: /readyz, port: revenant}
        periodSeconds: 20
      # Long runs ask for one and a half times the expected use and have no limits; short ones yield.
      resources:
        requests: {cpu: {{ include "revenant.cpu" . | quote }}, memory: {{ include "revenant.memory" . }}}
        {{- if eq .Values.tier "short" }}
        limits: {memory: {{ include "revenant.memoryLimit" . }}}
        {{- end }}
      # What CRIU needs; never `privileged`. Any seccomp filter would make saving impossible. The last two keep the monotonic
      # clock going on a node that was booted later; without them such a node is refused, unless REVENANT_CLOCK is best-effort.
      securityContext:
        seccompProfile: {type: Unconfined}
        capabilities: {add: [CHECKPOINT_RESTORE, SYS_PTRACE, SYS_ADMIN, SYS_TIME]}
      {{- if or (not .Values.store.url) .Values.data.claim .Values.keySecret }}
      volumeMounts:
        {{- if not .Values.store.url }}
        - {name: checkpoints, mountPath: /checkpoints}
        {{- end }}
        {{- if .Values.data.claim }}
        - {name: data, mountPath: {{ .Values.data.path | quote }}}
        {{- end }}
        {{- if .Values.keySecret }}
        - {name: key, mountPath: /run/secrets/revenant, readOnly: true}
        {{- end }}
      {{- end }}
  {{- $ownClaim := and (not .Values.store.url) (eq .Values.kind "job") }}
  {{- if or $ownClaim .Values.data.claim .Values.keySecret }}
  volumes:
    {{- if $ownClaim }}
    - {name: checkpoints, persistentVolumeClaim: {claimName: {{ .Release.Name }}-checkpoints}}
    {{- end }}
    {{- if .Values.data.claim }}
    - {name: data, persistentVolumeClaim: {claimName: {{ .Values.data.claim | quote }}}}
    {{- end }}
    {{- if .Values.keySecret }}
    - {name: key, secret: {secretName: {{ .Values.keySecret | quote }}, defaultMode: 0400}}
    {{- end }}
  {{- end }}
{{- end -}}

{{- /* The specification of a Job; .nodes says where it runs. */ -}}
{{- define "revenant.job" -}}
# Over months a node is lost more often than six times.
backoffLimit: 100
podFailurePolicy:
  rules:
    # Saved and stopped, or stopped with an earlier checkpoint: the next pod continues.
    - {action: Ignore, onExitCodes: {operator: In, values: [200, 201, 204, 209]}}
    # Preempted, drained, evicted, lost with its node.
    - {action: Ignore, onPodConditions: [{type: DisruptionTarget}]}
    # What another attempt cannot mend: settings, rights, CRIU, the key.
    - {action: FailJob, onExitCodes: {operator: In, values: [210, 207, 206, 208]}}
template:
  {{- include "revenant.pod" . | nindent 2 }}
{{- end -}}

{{- define "revenant.claim" -}}
accessModes: [ReadWriteOnce]
{{- if .Values.store.storageClass }}
storageClassName: {{ .Values.store.storageClass | quote }}
{{- end }}
resources: {requests: {storage: {{ include "revenant.claimGiB" . }}Gi}}
{{- end -}}
