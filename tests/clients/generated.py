"""Generates, compiles and runs a client per language, with the tools in `.venv-clients` and those of the machine."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / ".venv-clients"
SMOKE = Path(__file__).parent / "smoke"
PYTHON = TOOLS / "bin" / "python"
LIMIT_SECONDS = 1200.0  # per program; the generator and the compilers take less than a minute each on a quiet machine
GENERATORS = {
    "python": ("python", "packageName=calibrl_rest"),
    "typescript": ("typescript-fetch", "supportsES6=true"),
    "go": ("go", "packageName=calibrl,enumClassPrefix=true,useOneOfDiscriminatorLookup=true,withGoMod=false"),
    "java": (
        "java",
        "library=native,openApiNullable=false,useJakartaEe=false,hideGenerationTimestamp=true,"
        "apiPackage=io.calibrl.api,modelPackage=io.calibrl.model,invokerPackage=io.calibrl",
    ),
}


class ClientError(Exception):
    """A program failed. The message has the end of its output."""


class MissingToolError(Exception):
    """The machine lacks a program. The message names it."""


@dataclass(frozen=True)
class Place:
    """Folders of a client: `folder` for all of it, `client` for what the generator writes."""

    folder: Path
    environment: Mapping[str, str]

    @property
    def client(self) -> Path:
        return self.folder / "client"

    def run(self, *command: str | Path, cwd: Path | None = None, **variables: str) -> str:
        """Run a program and return its output.

        Raises:
            ClientError: it failed.
        """
        done = subprocess.run(
            [str(word) for word in command],
            cwd=cwd or self.folder,
            env={**os.environ, **self.environment, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT_SECONDS,
        )
        if done.returncode != 0:
            raise ClientError(f"{Path(command[0]).name}: status {done.returncode}\n{done.stdout[-4000:]}")
        return done.stdout


def try_client(language: str, document: Path, folder: Path, environment: Mapping[str, str]) -> str:
    """Make the client of a language from an OpenAPI document and run its smoke test. Return what the test prints.

    Raises:
        ClientError: the generator, a compiler or the test failed.
        MissingToolError: the machine lacks a program that this language needs.
    """
    place = Place(folder / language, environment)
    place.folder.mkdir(parents=True)
    generator, properties = GENERATORS[language]
    place.run(
        *(_tool("java"), "-jar", _generator_jar(), "generate", "-g", generator, "-i", document, "-o", place.client),
        *("--additional-properties", properties),
        *("--global-property", "apiTests=false,modelTests=false,apiDocs=false,modelDocs=false"),
    )
    return {"python": _python, "typescript": _typescript, "go": _go, "java": _java}[language](place)


def _python(place: Place) -> str:
    place.run(PYTHON, "-m", "compileall", "-q", place.client / "calibrl_rest")
    return place.run(PYTHON, SMOKE / "smoke.py", PYTHONPATH=str(place.client))


def _typescript(place: Place) -> str:
    shutil.copy(SMOKE / "smoke.ts", place.folder)
    (place.folder / "package.json").write_text('{"type": "commonjs"}')
    options = "--strict --target es2022 --module commonjs --moduleResolution node10 --lib es2022,dom --skipLibCheck"
    compiler = TOOLS / "node_modules" / "typescript" / "bin" / "tsc"
    place.run(_tool("node"), compiler, *options.split(), "--outDir", "built", "smoke.ts")
    return place.run(_tool("node"), "built/smoke.js")


def _go(place: Place) -> str:
    """Build without a proxy of modules: the one module that generated clients import comes from Debian."""
    (place.client / "go.mod").write_text("module calibrl\n\ngo 1.23\n\nrequire gopkg.in/validator.v2 v2.0.1\n")
    validator = _unpacked("golang-gopkg-validator.v2-dev") / "usr/share/gocode/src/gopkg.in/validator.v2"
    (validator / "go.mod").write_text("module gopkg.in/validator.v2\n\ngo 1.18\n")
    with (place.client / "go.mod").open("a") as file:
        file.write(f"\nreplace gopkg.in/validator.v2 => {validator}\n")
    program = place.client / "smoke"
    program.mkdir()
    shutil.copy(SMOKE / "smoke.go", program / "main.go")
    go = next(TOOLS.glob("lib/python*/site-packages/go/bin/go"), None)
    if go is None:
        raise MissingToolError("go")
    caches = {
        "GOCACHE": str(TOOLS / "go-cache"),
        "GOPATH": str(TOOLS / "go-path"),
        "GOPROXY": "off",
        "GOFLAGS": "-mod=mod",
    }
    place.run(go, "build", "-o", place.folder / "smoke", "./smoke", cwd=place.client, GOTOOLCHAIN="local", **caches)
    return place.run(place.folder / "smoke")


def _java(place: Place) -> str:
    """Compile with the libraries of Debian; Jackson is in the archive of the generator."""
    debian = ("libhttpclient-java", "libhttpcore-java", "libgeronimo-annotation-1.3-spec-java")
    jars = [jar for name in debian for jar in (_unpacked(name) / "usr/share/java").glob("*.jar")]
    classes = place.folder / "classes"
    path = os.pathsep.join(map(str, [classes, *jars, _generator_jar()]))
    sources = [*(place.client / "src/main/java").rglob("*.java"), SMOKE / "Smoke.java"]
    (place.folder / "sources").write_text("\n".join(f'"{source}"' for source in sources))
    place.run(_tool("javac"), "-nowarn", "-proc:none", "-d", classes, "-cp", path, "@sources")
    return place.run(_tool("java"), "-cp", path, "Smoke")


def _tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise MissingToolError(name)
    return found


def _generator_jar() -> Path:
    return next(TOOLS.glob("lib/python*/site-packages/openapi_generator_cli/openapi-generator.jar"))


def _unpacked(package: str) -> Path:
    """Return the folder with the files of a package of Debian, which is downloaded once.

    Raises:
        MissingToolError: the machine does not run Debian, or reaches none of its servers.
    """
    folder = TOOLS / "debian" / package
    if not folder.exists():
        part = TOOLS / "debian" / f"{package}.part"
        part.mkdir(parents=True, exist_ok=True)
        try:
            subprocess.run(["apt-get", "download", "-q", package], cwd=part, check=True, capture_output=True)
            (archive,) = part.glob("*.deb")
            subprocess.run(["dpkg-deb", "-x", archive.name, "."], cwd=part, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise MissingToolError(f"Debian's {package}") from error
        part.rename(folder)
    return folder
