"""Checks an OpenAPI document, and answers against it.

stdin: {"document": {...}, "answers": [[METHOD, PATH, STATUS, MEDIA TYPE, BODY], ...]}; says what is wrong, one line each.
"""

import json
import sys

from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from referencing import Registry
from referencing.jsonschema import DRAFT202012

given = json.load(sys.stdin)
document = given["document"]
wrong = [f"document: {error.message}" for error in OpenAPIV31SpecValidator(document).iter_errors()]


def absolute(schema):
    """The schema with its references made to the whole document."""
    if isinstance(schema, dict):
        return {
            key: "urn:document" + value if key == "$ref" else absolute(value) for key, value in schema.items()
        }
    return [absolute(item) for item in schema] if isinstance(schema, list) else schema


whole = absolute(document)
registry = Registry().with_resource("urn:document", DRAFT202012.create_resource(whole))
for method, path, status, media, body in given["answers"]:
    name = f"{method} {path} {status}"
    try:
        responses = whole["paths"][path][method.lower()]["responses"]
        schema = responses.get(str(status), responses.get("default"))["content"][media]["schema"]
    except (KeyError, TypeError):
        wrong.append(f"{name}: no schema for {media}")
        continue
    for error in OAS31Validator(schema, registry=registry).iter_errors(body):
        wrong.append(f"{name}: {error.json_path}: {error.message}")

print("\n".join(wrong))
sys.exit(1 if wrong else 0)
