"""schemas.py OUT VERSION CRD...: JSON schemas for kubeconform without a network, out of the Python package
kubernetes-validate, which carries those of Kubernetes, and of our CustomResourceDefinitions."""

import json
import pathlib
import sys

import kubernetes_validate
import yaml

out, version, *definitions = sys.argv[1:]
out = pathlib.Path(out)


def closed(schema):
    """Refuses unknown fields, as the API server does with strict validation."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: closed(part) for key, part in schema.items()}
    if isinstance(schema.get("properties"), dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        schema.setdefault("additionalProperties", False)
    return schema


package = pathlib.Path(kubernetes_validate.__file__).parent
for file in (package / "kubernetes-json-schema" / f"v{version}-local-strict").iterdir():
    schema = json.loads(file.read_text())
    # They point to the network, and references to a root that isn't there.
    schema.pop("$id", None)
    schema.pop("$schema", None)
    text = json.dumps(schema).replace("/api/_definitions.json", "_definitions.json")
    text = text.replace('"$defs"', '"definitions"').replace("#/$defs/", "#/definitions/")
    (out / file.name).write_text(text)

for path in definitions:
    definition = yaml.safe_load(pathlib.Path(path).read_text())["spec"]
    for served in definition["versions"]:
        schema = closed(served["schema"]["openAPIV3Schema"])
        schema["properties"].update(apiVersion={"type": "string"}, kind={"type": "string"}, metadata={"type": "object"})
        kind, group = definition["names"]["kind"], definition["group"].split(".")[0]
        (out / f"{kind}-{group}-{served['name']}.json".lower()).write_text(json.dumps(schema))
