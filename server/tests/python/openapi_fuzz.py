"""Has schemathesis make requests out of an endpoint's own OpenAPI document, and compare every answer with it.

    python openapi_fuzz.py BASE_URL API_KEY MODEL

The same requests each time: good ones, and ones that are wrong in one place. Exits 0 if no answer is a 5xx, or of a
status, a content type or a form that the document does not tell.
"""

import json
import pathlib
import subprocess
import sys
import tempfile
import urllib.request

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
)
# Of each operation, beside one for each bound that the document names; both together take seconds.
RANDOM_CASES = 100


def document(origin, model):
    """The document, with the one model named that is there: else all but a few requests would end at a 404."""
    with urllib.request.urlopen(f"{origin}/openapi.json") as answer:
        document = json.load(answer)
    for name, schema in document["components"]["schemas"].items():
        if name.endswith("Request"):
            schema["properties"]["model"] = {"enum": [model]}
    return document


def main():
    base_url, api_key, model = sys.argv[1:]
    origin = base_url.removesuffix("/v1")
    schemathesis = pathlib.Path(sys.executable).parent / "schemathesis"
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory, "openapi.json")
        path.write_text(json.dumps(document(origin, model)))
        arguments = [
            f"--url={origin}", f"--header=Authorization: Bearer {api_key}", f"--checks={','.join(CHECKS)}",
            "--phases=coverage,fuzzing", f"--max-examples={RANDOM_CASES}", "--generation-deterministic",
            "--request-timeout=60", "--warnings=off", "--no-color",
        ]
        sys.exit(subprocess.run([schemathesis, "run", path, *arguments], cwd=directory, check=False).returncode)


if __name__ == "__main__":
    main()
