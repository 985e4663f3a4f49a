{{- /*
Which controllers run, as JSON: each by its name, as `--controllers` and what they need of a cloud decide; `metal`, whether that provider
is asked for; and whose account addons act as: `own`, one of kube-system (`system`), or one `elsewhere`.
*/ -}}
{{- define "quarterdeck.on" -}}
{{- $table := include "quarterdeck.table" . | fromJson -}}
{{- $cloud := .Values.cloud -}}
{{- $metal := false -}}
{{- range $provider := $cloud.providers -}}
{{- $parts := splitn "=" 2 $provider -}}
{{- if and (eq $parts._0 "metal") (not (hasPrefix "grpc" (default "" $parts._1))) -}}
{{- $metal = true -}}
{{- end -}}
{{- end -}}
{{- $config := include "quarterdeck.cloudSecret" . -}}
{{- range $entry := .Values.controllers -}}
{{- if and (ne $entry "*") (not (hasKey $table (trimPrefix "-" $entry))) -}}
{{- fail (printf "controllers: %q is not a controller of quarterdeck; there are %s" (trimPrefix "-" $entry) (keys $table | sortAlpha | join ", ")) -}}
{{- end -}}
{{- end -}}
{{- $on := dict "metal" $metal "addonAdmin" .Values.addons.clusterAdmin -}}
{{- range $name, $needs := $table -}}
{{- $chosen := has "*" $.Values.controllers -}}
{{- $named := false -}}
{{- range $entry := $.Values.controllers -}}
{{- if and (not $named) (eq (trimPrefix "-" $entry) $name) -}}
{{- $named = true -}}
{{- $chosen = eq $entry $name -}}
{{- end -}}
{{- end -}}
{{- $lacks := "" -}}
{{- if $needs -}}
{{- if not $cloud.providers -}}
{{- $lacks = "cloud.providers" -}}
{{- else if and (eq $needs "metal") (not $metal) -}}
{{- $lacks = "the provider metal in cloud.providers" -}}
{{- else if and (eq $needs "metal") (not $config) -}}
{{- $lacks = "cloud.config or cloud.existingSecret" -}}
{{- else if and (eq $needs "routes") (not $cloud.configureRoutes) -}}
{{- $lacks = "cloud.configureRoutes" -}}
{{- else if and (eq $needs "routes") (not $cloud.clusterCIDR) -}}
{{- $lacks = "cloud.clusterCIDR" -}}
{{- end -}}
{{- end -}}
{{- if and $lacks $named $chosen -}}
{{- fail (printf "controllers: %s needs %s" $name $lacks) -}}
{{- end -}}
{{- $_ := set $on $name (and $chosen (not $lacks)) -}}
{{- end -}}
{{- $account := splitn "/" 2 .Values.addons.serviceAccount -}}
{{- $namespace := ternary $account._0 "kube-system" (contains "/" .Values.addons.serviceAccount) -}}
{{- $account = ternary $account._1 $account._0 (contains "/" .Values.addons.serviceAccount) -}}
{{- $_ := set $on "addonNamespace" $namespace -}}
{{- $_ := set $on "addonName" $account -}}
{{- if ne $namespace "kube-system" -}}
{{- $_ := set $on "addonAccount" "elsewhere" -}}
{{- else if has $account (list "" "quarterdeck-addons") -}}
{{- $_ := set $on "addonAccount" "own" -}}
{{- else -}}
{{- $_ := set $on "addonAccount" "system" -}}
{{- end -}}
{{- $on | toJson -}}
{{- end -}}

{{- /* What values must not say together. */ -}}
{{- define "quarterdeck.check" -}}
{{- if has .Values.lease.name (list "kube-controller-manager" "cloud-controller-manager") -}}
{{- fail (printf "lease.name: while quarterdeck holds the Lease %s nobody runs the controllers that it lacks; take another name" .Values.lease.name) -}}
{{- end -}}
{{- if and .Values.cloud.config .Values.cloud.existingSecret -}}
{{- fail "cloud.config and cloud.existingSecret: give one of the two" -}}
{{- end -}}
{{- if and .Values.cloud.config (not .Values.cloud.providers) -}}
{{- fail "cloud.config: cloud.providers names no provider that would read it" -}}
{{- end -}}
{{- if and (eq .Values.fence.mode "required") (not .Values.fence.install) -}}
{{- fail "fence.mode: with \"required\" nobody leads without the fence, and fence.install leaves it out" -}}
{{- end -}}
{{- if and (not .Values.serviceAccount.create) (not .Values.serviceAccount.name) -}}
{{- fail "serviceAccount.name: name the account, since serviceAccount.create is off" -}}
{{- end -}}
{{- if and .Values.monitoring.serviceMonitor.enabled (not .Values.monitoring.service) -}}
{{- fail "monitoring.serviceMonitor: it finds replicas through the Service that monitoring.service leaves out" -}}
{{- end -}}
{{- end -}}
