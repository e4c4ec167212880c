{{- define "confonnx.name" -}}
{{- $name := .Release.Name -}}
{{- if not (contains .Chart.Name $name) -}}{{- $name = printf "%s-%s" $name .Chart.Name -}}{{- end -}}
{{- $name | trunc 46 | trimSuffix "-" -}}
{{- end -}}

{{- define "confonnx.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "confonnx.labels" -}}
{{ include "confonnx.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "confonnx.modelFolder" -}}
{{- if .Values.model.repository -}}{{ .Values.model.path }}{{- else -}}{{ dir .Values.model.path }}{{- end -}}
{{- end -}}

{{/* The folder of the model is a volume of the pod. */}}
{{- define "confonnx.modelVolume" -}}
{{- $from := .Values.model.from -}}
{{- if or $from.claim $from.image $from.init.image $from.configMap -}}yes{{- end -}}
{{- end -}}

{{/* What the JSON schema cannot say. */}}
{{- define "confonnx.check" -}}
{{- $v := .Values -}}
{{- $from := $v.model.from -}}
{{- $sources := list -}}
{{- range $name, $set := dict "claim" $from.claim "image" $from.image "init.image" $from.init.image "configMap" $from.configMap -}}
{{- if $set -}}{{- $sources = append $sources $name -}}{{- end -}}
{{- end -}}
{{- if gt (len $sources) 1 -}}
{{- fail (printf "model.from has %s; expected at most one of claim, image, init.image, configMap" (join ", " (sortAlpha $sources))) -}}
{{- end -}}
{{- if and $v.insecure $v.tee -}}
{{- fail (printf "insecure is true and tee is %s; expected one of them: without a TEE nothing is confidential" $v.tee) -}}
{{- end -}}
{{- if and $v.auth.keySecret $v.auth.fileSecret -}}
{{- fail "auth.keySecret and auth.fileSecret are both given; expected one of them" -}}
{{- end -}}
{{- if and (eq $v.keys.provider "local") (gt (int $v.replicas) 1) -}}
{{- fail (printf "keys.provider is local with %d replicas behind one Service: a client attests one and its requests reach another; use keys.provider peer, or replicas 1" (int $v.replicas)) -}}
{{- end -}}
{{- if and (eq $v.keys.provider "kbs") (not (and $v.kbs.url $v.kbs.resource)) -}}
{{- fail "keys.provider is kbs; expected kbs.url and kbs.resource, too" -}}
{{- end -}}
{{- if and (eq $v.keys.provider "akv") (not (and $v.akv.vaultUrl $v.akv.serviceKeyName $v.akv.attestationUrl)) -}}
{{- fail "keys.provider is akv; expected akv.vaultUrl, akv.serviceKeyName and akv.attestationUrl, too" -}}
{{- end -}}
{{- if and (eq $v.model.encrypted.keyFrom "kbs") (not (and $v.kbs.url $v.model.encrypted.resource)) -}}
{{- fail "model.encrypted.keyFrom is kbs; expected kbs.url and model.encrypted.resource, too" -}}
{{- end -}}
{{- if and (eq $v.model.encrypted.keyFrom "akv") (not (and $v.akv.vaultUrl $v.akv.modelKeyName $v.akv.attestationUrl)) -}}
{{- fail "model.encrypted.keyFrom is akv; expected akv.vaultUrl, akv.modelKeyName and akv.attestationUrl, too" -}}
{{- end -}}
{{- if and $v.model.encrypted.ownerSecret (not (has $v.model.encrypted.keyFrom (list "" "owner"))) -}}
{{- fail (printf "model.encrypted.ownerSecret with keyFrom %s: a service signs nothing for the model's owner; expected keyFrom owner" $v.model.encrypted.keyFrom) -}}
{{- end -}}
{{- if or $v.akv.appId $v.akv.appPwd -}}
{{- fail "akv.appId and akv.appPwd are of the 2020 chart: a password in a pod's environment; use the node's managed identity, or akv.tokenSecret" -}}
{{- end -}}
{{- if and $v.letsEncrypt.enabled (not $v.host) -}}
{{- fail "letsEncrypt.enabled needs host, the name that the certificate is for" -}}
{{- end -}}
{{- if and $v.gateway.enabled (not $v.gateway.parentRefs) -}}
{{- fail "gateway.enabled needs gateway.parentRefs, such as [{name: my-gateway}]" -}}
{{- end -}}
{{- end -}}
