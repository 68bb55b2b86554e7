"""Write the Python modules of the contract from the .proto files: ``python -m services.contract.generate``.

Generated code refuses to run on a protobuf or grpcio older than its generator, so generate with the lowest grpcio-tools that
pyproject.toml allows: it needs an environment of its own, because it wants an older protobuf than the project runs on.
"""

from __future__ import annotations

import re
import sys
from importlib.resources import files
from pathlib import Path

PROTO_ROOT = Path(__file__).parents[2] / "proto"
PACKAGE = "llmgr/v1"


def generate(output: Path) -> list[Path]:
    """Generate every module of the contract into ``output``.

    Returns:
        the files written.

    Raises:
        RuntimeError: protoc refused the .proto files.
    """
    from grpc_tools import protoc

    sources = sorted((PROTO_ROOT / PACKAGE).glob("*.proto"))
    arguments = ["protoc", f"-I{PROTO_ROOT}", f"-I{files('grpc_tools') / '_proto'}"]
    arguments += [f"--python_out={output}", f"--pyi_out={output}", f"--grpc_python_out={output}"]
    if protoc.main([*arguments, *(str(source) for source in sources)]) != 0:
        raise RuntimeError("protoc failed; its messages stand above")
    written = []
    for module in sorted((output / PACKAGE).iterdir()):
        target = output / module.name
        text = module.read_text(encoding="utf-8")
        if module.name.endswith("_pb2_grpc.py") and "Servicer" not in text:
            continue
        target.write_text(_relative_imports(text), encoding="utf-8")
        written.append(target)
    for module in (output / PACKAGE).iterdir():
        module.unlink()
    (output / PACKAGE).rmdir()
    (output / PACKAGE).parent.rmdir()
    return written


def _relative_imports(text: str) -> str:
    dotted = re.escape(PACKAGE.replace("/", "."))
    text = re.sub(rf"^from {dotted} import ", "from . import ", text, flags=re.MULTILINE)
    return re.sub(rf"^import {dotted}\.(\w+) as ", r"from . import \1 as ", text, flags=re.MULTILINE)


if __name__ == "__main__":
    for path in generate(Path(__file__).parent if len(sys.argv) == 1 else Path(sys.argv[1])):
        print(path)
