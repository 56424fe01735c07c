"""A public key in a config file: written out, or as the name of the file that holds it."""

from __future__ import annotations

from . import values
from .document import Document
from .lines import Place


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
