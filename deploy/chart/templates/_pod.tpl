{{/* Settings, as variables. Secrets are files. */}}
{{- define "confonnx.env" -}}
{{- $v := .Values -}}
{{- $name := include "confonnx.name" . -}}
{{- $env := dict
      "CONFONNX_ADDRESS" "0.0.0.0"
      "CONFONNX_HTTP_PORT" 8888
      "CONFONNX_ADMIN_ADDRESS" $v.adminAddress
      "CONFONNX_ADMIN_PORT" 8889
      "CONFONNX_SHUTDOWN_GRACE" $v.shutdownGrace
      "CONFONNX_KEY_PROVIDER" $v.keys.provider
      "CONFONNX_KEY_ROLLOVER_INTERVAL" $v.keys.rollover
      "CONFONNX_KEY_GRACE" $v.keys.grace
      "CONFONNX_KEY_ERROR_RETRY_INTERVAL" 5
      "CONFONNX_COLLATERAL_CACHE" "/var/lib/confonnx" -}}
{{- if $v.model.repository -}}
{{- $_ := set $env "CONFONNX_MODEL_REPOSITORY" $v.model.path -}}
{{- else -}}
{{- $_ := set $env "CONFONNX_MODEL_PATH" $v.model.path -}}
{{- with $v.model.name -}}{{- $_ := set $env "CONFONNX_MODEL_NAME" . -}}{{- end -}}
{{- end -}}
{{- if $v.insecure -}}{{- $_ := set $env "CONFONNX_DEBUG" true -}}{{- end -}}
{{- with $v.tee -}}{{- $_ := set $env "CONFONNX_TEE" . -}}{{- end -}}
{{- if $v.maxPeerPercent -}}
{{- $_ := set $env "CONFONNX_MAX_PEER_PERCENT" $v.maxPeerPercent -}}
{{- else if or $v.urlPrefix $v.gateway.enabled $v.service.headless (ne $v.service.type "ClusterIP") -}}
{{- $_ := set $env "CONFONNX_MAX_PEER_PERCENT" 100 -}}
{{- end -}}
{{- if eq $v.keys.provider "peer" -}}
{{- $_ := set $env "CONFONNX_PEERS" (printf "dns:%s-peers:8888" $name) -}}
{{- $_ := set $env "CONFONNX_PEER_BOOTSTRAP" "ordinal" -}}
{{- if $v.keys.peerPolicy -}}{{- $_ := set $env "CONFONNX_PEER_POLICY" "/etc/confonnx/peers/peers.toml" -}}{{- end -}}
{{- end -}}
{{- with $v.kbs.url -}}{{- $_ := set $env "CONFONNX_KBS_URL" . -}}{{- end -}}
{{- if eq $v.keys.provider "kbs" -}}{{- $_ := set $env "CONFONNX_KBS_RESOURCE" $v.kbs.resource -}}{{- end -}}
{{- if $v.kbs.caConfigMap -}}{{- $_ := set $env "CONFONNX_KBS_CA_FILE" "/etc/confonnx/kbs/ca.pem" -}}{{- end -}}
{{- with $v.akv.vaultUrl -}}{{- $_ := set $env "CONFONNX_AKV_URL" . -}}{{- end -}}
{{- with $v.akv.attestationUrl -}}{{- $_ := set $env "CONFONNX_AKV_ATTESTATION_URL" . -}}{{- end -}}
{{- if eq $v.keys.provider "akv" -}}{{- $_ := set $env "CONFONNX_AKV_KEY" $v.akv.serviceKeyName -}}{{- end -}}
{{- if $v.akv.tokenSecret -}}{{- $_ := set $env "CONFONNX_AKV_TOKEN_FILE" "/secrets/akv/token" -}}{{- end -}}
{{- $from := $v.model.encrypted.keyFrom -}}
{{- if eq $from "kbs" -}}{{- $_ := set $env "CONFONNX_MODEL_KEY_SOURCE" (printf "kbs:%s" $v.model.encrypted.resource) -}}{{- end -}}
{{- if eq $from "akv" -}}{{- $_ := set $env "CONFONNX_MODEL_KEY_SOURCE" (printf "akv:%s" $v.akv.modelKeyName) -}}{{- end -}}
{{- if or (eq $from "owner") $v.useModelKeyProvisioning -}}{{- $_ := set $env "CONFONNX_USE_MODEL_KEY_PROVISIONING" true -}}{{- end -}}
{{- if $v.model.encrypted.ownerSecret -}}{{- $_ := set $env "CONFONNX_MODEL_OWNER_KEY_FILE" "/secrets/owner/owner.pem" -}}{{- end -}}
{{- if $v.auth.keySecret -}}{{- $_ := set $env "CONFONNX_AUTH_KEY_FILE" "/secrets/auth/keys" -}}{{- end -}}
{{- if $v.auth.fileSecret -}}{{- $_ := set $env "CONFONNX_AUTH_FILE" "/secrets/auth/auth.toml" -}}{{- end -}}
{{- if $v.auth.audit -}}{{- $_ := set $env "CONFONNX_AUDIT_LOG" "-" -}}{{- end -}}
{{- if and $v.sgx.epcMemInMiB $v.sgx.aesmSocket -}}{{- $_ := set $env "SGX_AESM_ADDR" 1 -}}{{- end -}}
{{- range $key, $value := $v.settings -}}{{- $_ := set $env $key $value -}}{{- end -}}
{{- range $key, $value := $env }}
- name: {{ $key }}
  value: {{ if kindIs "float64" $value }}{{ int64 $value | quote }}{{ else }}{{ $value | toString | quote }}{{ end }}
{{- end }}
{{- with $v.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "confonnx.resources" -}}
{{- $resources := deepCopy .Values.resources -}}
{{- with .Values.sgx -}}
{{- if .epcMemInMiB -}}
{{- $limits := $resources.limits | default dict -}}
{{- $_ := set $limits .epcResource (printf "%dMi" (int .epcMemInMiB)) -}}
{{- with .enclaveResource }}{{- $_ := set $limits . 1 -}}{{- end -}}
{{- with .provisionResource }}{{- $_ := set $limits . 1 -}}{{- end -}}
{{- $_ := set $resources "limits" $limits -}}
{{- end -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end -}}

{{- define "confonnx.mounts" -}}
{{- $v := .Values -}}
- { name: collateral, mountPath: /var/lib/confonnx }
- { name: tmp, mountPath: /tmp }
{{- if include "confonnx.modelVolume" . }}
- name: model
  mountPath: {{ include "confonnx.modelFolder" . }}
  readOnly: true
  {{- with $v.model.from.subPath }}
  subPath: {{ . }}
  {{- end }}
{{- end }}
{{- if $v.keys.peerPolicy }}
- { name: peers, mountPath: /etc/confonnx/peers, readOnly: true }
{{- end }}
{{- if $v.kbs.caConfigMap }}
- { name: kbs, mountPath: /etc/confonnx/kbs, readOnly: true }
{{- end }}
{{- if $v.akv.tokenSecret }}
- { name: akv, mountPath: /secrets/akv, readOnly: true }
{{- end }}
{{- if $v.model.encrypted.ownerSecret }}
- { name: owner, mountPath: /secrets/owner, readOnly: true }
{{- end }}
{{- if or $v.auth.keySecret $v.auth.fileSecret }}
- { name: auth, mountPath: /secrets/auth, readOnly: true }
{{- end }}
{{- if and $v.sgx.epcMemInMiB $v.sgx.aesmSocket }}
- { name: aesmd, mountPath: {{ $v.sgx.aesmSocket }} }
{{- end }}
{{- with $v.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "confonnx.volumes" -}}
{{- $v := .Values -}}
- name: collateral
  emptyDir: {}
- name: tmp
  emptyDir: {}
{{- with $v.model.from }}
{{- if .claim }}
- name: model
  persistentVolumeClaim: { claimName: {{ .claim }}, readOnly: true }
{{- else if .image }}
- name: model
  image: { reference: {{ .image | quote }}, pullPolicy: {{ $v.imagePullPolicy }} }
{{- else if .init.image }}
- name: model
  emptyDir: {}
{{- else if .configMap }}
- name: model
  configMap: { name: {{ .configMap }} }
{{- end }}
{{- end }}
{{- if $v.keys.peerPolicy }}
- name: peers
  configMap: { name: {{ include "confonnx.name" . }}-peers }
{{- end }}
{{- with $v.kbs.caConfigMap }}
- name: kbs
  configMap: { name: {{ . }} }
{{- end }}
{{- with $v.akv.tokenSecret }}
- name: akv
  secret: { secretName: {{ . }} }
{{- end }}
{{- with $v.model.encrypted.ownerSecret }}
- name: owner
  secret: { secretName: {{ . }} }
{{- end }}
{{- with $v.auth.keySecret | default $v.auth.fileSecret }}
- name: auth
  secret: { secretName: {{ . }} }
{{- end }}
{{- if and $v.sgx.epcMemInMiB $v.sgx.aesmSocket }}
- name: aesmd
  hostPath: { path: {{ $v.sgx.aesmSocket }}, type: Directory }
{{- end }}
{{- with $v.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}
