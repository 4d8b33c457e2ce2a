"""Make `.venv` ready for `make`; parses on Python 3.6 too, so as to say why that is refused."""

import hashlib
import os
import shutil
import subprocess
import sys

OLDEST = (3, 11)
NEWER_NAMES = ("python3.14", "python3.13", "python3.12", "python3.11")
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, ".venv")
LOCKS = {"runtime": "requirements.lock", "dev": "requirements-dev.lock"}
# What a set of packages also satisfies: the development lock holds every runtime pin.
COVERS = {"runtime": ("runtime",), "dev": ("dev", "runtime")}


class SetupError(Exception):
    """The environment cannot be made ready; the text is one sentence for a person."""


def main(arguments):
    """Install the packages of one lock file, unless they already are."""
    try:
        if sys.version_info < OLDEST:
            return restart_on_newer_python(arguments)
        prepare(arguments[0] if arguments else "runtime")
    except SetupError as error:
        print("ringfence: {}".format(error), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def restart_on_newer_python(arguments):
    for name in NEWER_NAMES:
        path = shutil.which(name)
        if path and is_new_enough(path):
            return subprocess.call([path, os.path.abspath(__file__)] + arguments)
    raise SetupError(
        "Python {}.{} or newer is needed, and this is Python {}; name a newer one with "
        "`make PYTHON=/path/to/python3 ...`.".format(
            OLDEST[0], OLDEST[1], ".".join(str(part) for part in sys.version_info[:3])
        )
    )


def prepare(kind):
    wanted = fingerprint(kind)
    if venv_python_works() and read_stamp(kind) == wanted:
        return
    if not venv_python_works() or read_stamp("place") != place():
        make_venv()
    install(kind)
    write_stamp("place", place())
    for covered in COVERS[kind]:
        write_stamp(covered, fingerprint(covered))


def make_venv():
    try:
        import ensurepip  # noqa: F401, PLC0415 - Debian ships Python without it.
        import venv  # noqa: F401, PLC0415
    except ImportError:
        raise SetupError(
            "this Python cannot make virtual environments; on Debian and Ubuntu, "
            "`apt-get install python3-venv` adds what is missing."
        ) from None
    say("making .venv with Python {}.{}.{}".format(*sys.version_info[:3]))
    run([sys.executable, "-m", "venv", "--clear", VENV], "the folder .venv could not be made")


def install(kind):
    say("installing the packages of {}".format(LOCKS[kind]))
    pip = [venv_python(), "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
    run(
        pip + ["--no-deps", "--require-hashes", "--requirement", os.path.join(ROOT, LOCKS[kind])],
        "the packages of {} could not be installed".format(LOCKS[kind]),
    )
    run(
        pip + ["--no-deps", "--no-build-isolation", "--editable", ROOT],
        "Ringfence itself could not be installed into .venv",
    )


def run(command, failure):
    # Whatever Python the caller has active must not leak into the environment made here.
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONHOME", "PYTHONPATH", "PIP_USER", "PIP_TARGET", "PIP_PREFIX")
    }
    try:
        status = subprocess.call(command, env=environment, cwd=ROOT)
    except OSError as error:
        raise SetupError("{}: {}.".format(failure, error.strerror)) from None
    if status != 0:
        raise SetupError("{}; the reason stands above.".format(failure))


def venv_python():
    return os.path.join(VENV, "bin", "python")


def venv_python_works():
    return is_new_enough(venv_python())


def is_new_enough(python):
    try:
        version = subprocess.check_output(
            [python, "-I", "-S", "-c", "import sys; print(sys.version_info[:2] >= (3, 11))"],
            stderr=subprocess.DEVNULL,
        )
    except (OSError, subprocess.CalledProcessError):
        return False
    return version.strip() == b"True"


def place():
    """Say where the environment stands and which Python it was made with; neither can be changed later."""
    return "{}\n{}".format(VENV, os.path.realpath(getattr(sys, "_base_executable", sys.executable)))


def fingerprint(kind):
    digest = hashlib.sha256(place().encode())
    for name in (LOCKS[kind], "pyproject.toml"):
        with open(os.path.join(ROOT, name), "rb") as file:
            digest.update(file.read())
    return digest.hexdigest()


def stamp_path(name):
    return os.path.join(VENV, "ringfence-{}.stamp".format(name))


def read_stamp(name):
    try:
        with open(stamp_path(name)) as file:
            return file.read()
    except OSError:
        return ""


def write_stamp(name, text):
    with open(stamp_path(name), "w") as file:
        file.write(text)


def say(text):
    print("ringfence: {}".format(text), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
