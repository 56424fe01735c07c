"""Keys in a config file: a public one written out or as the name of its file, a secret one by its file or credential.

`credential:NAME` is what systemd hands to the unit alone (`LoadCredential=NAME:FILE`). Where it lies is known to the
running unit and to nobody who only reads the config, so it stays as it is written until the key itself is read.
"""

from __future__ import annotations

from pathlib import Path

from . import values
from .document import Document
from .lines import Place

#: What a secret key begins with that systemd hands over; `transport.keys` finds it.
CREDENTIAL = "credential:"


def secret_key(document: Document, place: Place, text: str) -> Path:
    """Where a secret key lies: an absolute path, or the credential as it is written."""
    if not text.startswith(CREDENTIAL):
        return document.absolute(text)
    name = text[len(CREDENTIAL) :]
    if name in ("", ".", "..") or "/" in name:
        document.say_value(place, text, 'must name a credential of the unit, as in "credential:agent.key"')
    return Path(text)


def public_key(document: Document, place: Place, text: str, name: str) -> str:
    """The key itself, or that in the named ".pub" file. A file that exists wins, should a key ever look like one."""
    file = document.absolute(text)
    try:
        if text.endswith(".pub") and (file.is_file() or not values.is_z85_key(text)):
            from hbagent.transport.keys import KeyFileError, load_public

            try:
                public = load_public(file)
            except KeyFileError as error:
                raise ValueError(str(error)) from error
            if name and public.name != name:
                raise ValueError(f"is the key of {public.name}, not of {name}")
            return public.key
        return values.z85_key(text)
    except ValueError as error:
        document.say_value(place, text, str(error))
    except OSError as error:
        document.say_value(place, text, f"cannot be read: {error.strerror or error}")
    return ""
