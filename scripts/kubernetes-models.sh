#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Into the folder TO: npm's validators of Kubernetes' and prometheus-operator's objects, and operator.schema.json, made
# from the operator's types because no package has one. They complete each other: the validators know enumerations,
# durations and quantities and let unknown fields pass; the schema knows the fields.
#
#   kubernetes-models.sh TO
set -eu

# 2.4.0 is the last one for Node.js 18, which Debian 12 has.
packages="kubernetes-models@5.1.0 @kubernetes-models/prometheus-operator@6.0.0 ts-json-schema-generator@2.4.0 typescript@5.9.3"
to=$1

[ "$(cat "$to/.packages" 2>/dev/null)" != "$packages" ] || exit 0
command -v npm >/dev/null || "$(dirname "$0")/debian.sh" install nodejs npm
echo "taking from npm: $packages"
rm -rf "$to"
mkdir -p "$to"
cd "$to"
echo '{"private": true}' >package.json
# shellcheck disable=SC2086 # a list of words
npm install --loglevel=error --no-audit --no-fund --ignore-scripts --save-exact $packages >/dev/null
cat >types.ts <<'END'
import type { IPodMonitor } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PodMonitor";
import type { IPrometheusRule } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PrometheusRule";
export type PodMonitor = IPodMonitor;
export type PrometheusRule = IPrometheusRule;
END
echo '{"compilerOptions": {"module": "esnext", "moduleResolution": "bundler", "skipLibCheck": true, "types": []}}' >tsconfig.json
node_modules/.bin/ts-json-schema-generator --tsconfig tsconfig.json --path types.ts --out operator.schema.json
echo "$packages" >.packages
