{{- /* The pod of a replica. */ -}}
{{- define "quarterdeck.pod" -}}
{{- $on := include "quarterdeck.on" . | fromJson -}}
{{- $addons := index $on "addon-controller" -}}
{{- $cloudSecret := include "quarterdeck.cloudSecret" . -}}
metadata:
  labels:
    {{- include "quarterdeck.labels" . | nindent 4 }}
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .Values.podAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ include "quarterdeck.serviceAccountName" . }}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}
  {{- if .Values.hostNetwork }}
  hostNetwork: true
  dnsPolicy: ClusterFirstWithHostNet
  {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if eq .Values.kind "Deployment" }}
  affinity:
    podAntiAffinity:
      requiredDuringSchedulingIgnoredDuringExecution:
        - topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels:
              {{- include "quarterdeck.selector" . | nindent 14 }}
  {{- end }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    {{- if $cloudSecret }}
    # It reads the Secret with the cloud's settings as this group.
    fsGroup: 65532
    {{- end }}
    seccompProfile:
      type: RuntimeDefault
  containers:
    - name: quarterdeck
      image: {{ include "quarterdeck.image" . | quote }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      command:
        - quarterdeck
        - --controllers={{ join "," .Values.controllers }}
        - --leader-elect-resource-name={{ .Values.lease.name }}
        - --leader-elect-resource-namespace={{ .Values.lease.namespace }}
        - --leader-elect-lease-duration={{ .Values.lease.duration }}
        - --leader-elect-renew-deadline={{ .Values.lease.renewDeadline }}
        - --leader-elect-retry-period={{ .Values.lease.retryPeriod }}
        - --fence={{ .Values.fence.mode }}
        - --replica-name=$(NODE_NAME)
        - --secure-port={{ .Values.port }}
        {{- if $addons }}
        - --addon-path={{ .Values.addons.path }}
        - --admission-controls-path={{ .Values.addons.admissionControlsPath }}
        - --state-dir=/var/lib/quarterdeck
        {{- with .Values.addons.serviceAccount }}
        - --addon-service-account={{ . }}
        {{- end }}
        {{- range .Values.addons.channels }}
        - {{ printf "--channel=%s" . | quote }}
        {{- end }}
        {{- end }}
        {{- range .Values.cloud.providers }}
        - {{ printf "--cloud-provider=%s" . | quote }}
        {{- end }}
        {{- if $cloudSecret }}
        - --cloud-config=/etc/quarterdeck/cloud/cloud.conf
        {{- end }}
        {{- if .Values.cloud.providers }}
        - --configure-cloud-routes={{ .Values.cloud.configureRoutes }}
        {{- with .Values.cloud.clusterCIDR }}
        - --cluster-cidr={{ . }}
        {{- end }}
        {{- end }}
        {{- range .Values.extraArgs }}
        - {{ . | quote }}
        {{- end }}
      env:
        - name: NODE_NAME
          valueFrom:
            fieldRef:
              fieldPath: spec.nodeName
        {{- with .Values.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      ports:
        - name: https
          containerPort: {{ .Values.port }}
      startupProbe:
        httpGet: { path: /livez, port: https, scheme: HTTPS }
        periodSeconds: 5
        timeoutSeconds: 15
        failureThreshold: 24
      livenessProbe:
        httpGet: { path: /livez, port: https, scheme: HTTPS }
        periodSeconds: 10
        timeoutSeconds: 15
        failureThreshold: 8
      readinessProbe:
        httpGet: { path: /readyz, port: https, scheme: HTTPS }
        periodSeconds: 5
        timeoutSeconds: 5
        failureThreshold: 3
      {{- with .Values.resources }}
      resources:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities:
          drop: [ALL]
      volumeMounts:
        - name: state
          mountPath: /var/lib/quarterdeck
        {{- if and $addons .Values.addons.path }}
        - name: addons
          mountPath: {{ .Values.addons.path }}
          readOnly: true
        {{- end }}
        {{- if and $addons .Values.addons.admissionControlsPath }}
        - name: admission-controls
          mountPath: {{ .Values.addons.admissionControlsPath }}
          readOnly: true
        {{- end }}
        {{- if $cloudSecret }}
        - name: cloud
          mountPath: /etc/quarterdeck/cloud
          readOnly: true
        {{- end }}
  volumes:
    - name: state
      {{- if .Values.state.hostPath }}
      hostPath: { path: {{ .Values.state.hostPath | quote }}, type: Directory }
      {{- else }}
      emptyDir: { sizeLimit: {{ .Values.state.sizeLimit | quote }} }
      {{- end }}
    {{- if and $addons .Values.addons.path }}
    - name: addons
      hostPath: { path: {{ .Values.addons.path | quote }}, type: DirectoryOrCreate }
    {{- end }}
    {{- if and $addons .Values.addons.admissionControlsPath }}
    - name: admission-controls
      hostPath: { path: {{ .Values.addons.admissionControlsPath | quote }}, type: DirectoryOrCreate }
    {{- end }}
    {{- if $cloudSecret }}
    - name: cloud
      secret: { secretName: {{ $cloudSecret | quote }}, defaultMode: 0440 }
    {{- end }}
{{- end -}}
