#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Prints the rules of deploy/prometheus as objects of prometheus-operator, whose files cannot be included:
#
#   scripts/prometheus-rule.sh >deploy/k8s/components/prometheus-operator/prometheusrule.yaml
set -eu
cd "$(dirname "$0")/.."

echo "# SPDX-License-Identifier: Apache-2.0"
echo "# Made from deploy/prometheus by scripts/prometheus-rule.sh; change it there."
for file in deploy/prometheus/*.yaml; do
	cat <<END
---
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: hmm-exporter-$(basename "$file" .yaml)
  namespace: hmm-exporter
  labels:
    app.kubernetes.io/name: hmm-exporter
spec:
END
	sed -n '/^groups:/,$ p' "$file" | sed 's/^./  &/'
done
