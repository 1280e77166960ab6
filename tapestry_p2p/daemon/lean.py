"""Imports as much of libp2p as we use: its packages load what lies in them, not all they offer.

``import libp2p`` alone takes most of a second and 40 MB, for QUIC, TLS, mDNS, relays and name
servers that nothing here starts (transport.py uses Noise and multistream). The packages named below
are put into ``sys.modules`` empty, with their folders: modules inside them are found as ever.
Whoever asks such a package itself for a name gets the whole package then. QUIC and RSA are loaded
for names in two tables alone: those are read while something else has the names. A stranger whose
key is of RSA (which nobody here takes) has it loaded. Imported for this effect, before anything of
libp2p; it does nothing where libp2p is loaded already, or not installed.
"""

import contextlib
import importlib
import importlib.machinery
import importlib.util
import sys
from types import ModuleType
from typing import Any

PACKAGES = ("libp2p", "libp2p.transport", "libp2p.network")
QUIC, RSA = "libp2p.transport.quic.stream", "libp2p.crypto.rsa"
RSA_KEYS = ("RSAPrivateKey", "RSAPublicKey")


class LeanPackage(ModuleType):
    """A package whose ``__init__`` runs when somebody asks it for a name that it lacks."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        spec = self.__spec__
        assert spec is not None and spec.loader is not None
        self.__class__ = ModuleType  # type: ignore[assignment]
        spec.loader.exec_module(self)
        return getattr(self, name)


def _prepare() -> None:
    """Put the packages in place, outer ones first."""
    if PACKAGES[0] in sys.modules or importlib.util.find_spec(PACKAGES[0]) is None:
        return
    for name in PACKAGES:
        outer, _, short = name.rpartition(".")
        path = sys.modules[outer].__path__ if outer else None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is None or spec.submodule_search_locations is None:
            return  # another version of libp2p: guard.py will say so
        package = LeanPackage(name)
        package.__spec__, package.__loader__ = spec, spec.loader
        package.__path__, package.__file__ = spec.submodule_search_locations, spec.origin
        package.__package__ = name
        sys.modules[name] = package
        if outer:
            setattr(sys.modules[outer], short, package)
    keys = {name: type(name, (), {"from_bytes": _loaded(name)}) for name in RSA_KEYS}
    _read("libp2p.crypto.serialization", RSA, **keys)
    _read("libp2p.custom_types", QUIC, QUICStream=type("QUICStream", (), {}))


def _read(table: str, unused: str, **names: type) -> None:
    """Import a module that takes ``names`` from another one, which is not imported."""
    sys.modules[unused] = stand_in = ModuleType(unused)
    vars(stand_in).update(names)
    with contextlib.suppress(ImportError):  # another version of libp2p: guard.py will say so
        importlib.import_module(table)
    del sys.modules[unused]


def _loaded(name: str) -> Any:
    """What a key of RSA is read by: the real one."""

    def from_bytes(data: bytes) -> Any:
        return getattr(importlib.import_module(RSA), name).from_bytes(data)

    return staticmethod(from_bytes)


_prepare()
