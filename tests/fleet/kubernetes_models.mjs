// SPDX-License-Identifier: Apache-2.0
// node kubernetes_models.mjs MODELS < manifests as JSON: prints what is wrong with them, a line each. MODELS is the
// folder that scripts/kubernetes-models.sh makes.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const models = pathToFileURL(process.argv[2] + "/");
const Ajv = createRequire(models)("ajv").default;
const strict = new Ajv({ allErrors: true });
strict.addSchema(JSON.parse(readFileSync(new URL("operator.schema.json", models))), "operator");

for (const manifest of JSON.parse(readFileSync(0))) {
  const { apiVersion, kind } = manifest;
  const operators = apiVersion.startsWith("monitoring.coreos.com/");
  const module = operators ? "@kubernetes-models/prometheus-operator" : "kubernetes-models";
  const say = (where, what) => console.log(`${kind}${where}: ${what}`);
  const object = (await import(new URL(`node_modules/${module}/${apiVersion}/${kind}.js`, models)))[kind];
  try {
    new object(manifest).validate();
  } catch (error) {
    say("", error.message);
  }
  const fields = operators && strict.getSchema(`operator#/definitions/${kind}`);
  if (fields && !fields(manifest)) {
    for (const error of fields.errors) say(error.instancePath, `${error.message} ${JSON.stringify(error.params)}`);
  }
}
