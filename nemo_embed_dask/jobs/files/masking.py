"""Hide secrets and control characters in texts that are shown or written."""

from __future__ import annotations

import re

# ``secret`` is what to hide: key:secret@ in an address; name=secret in a query or a connection string, but not
# in the name of a folder, such as /key=5/.
_SECRETS = (
    re.compile(r"://(?P<secret>[^/@\s:]*:[^@\s]*(?:@[^/@\s]*)*)@"),
    re.compile(
        r"(?i)(?<![\w/])(?:sig|signature|token|key|password|passwd|pwd|secret|x-(?:amz|goog)-[\w-]+|AWSAccessKeyId"
        r"|\w*account_?key|\w*sas_?token|\w*secret_?\w*|\w*access_?key\w*|\w*_(?:token|password|key))"
        r"(?:\s*=\s*|[\"']\s*:\s*)[\"']?(?P<secret>[^&;,\s\"')]+)"
    ),
)


def mask_secrets(text: str, address: str = "") -> str:
    """Replace keys, passwords, tokens and signatures by ``***``, and those of ``address`` wherever they are."""
    for found in (found for pattern in _SECRETS for found in pattern.finditer(address)):
        for secret in (found["secret"], found["secret"].partition(":")[2]):
            text = text.replace(secret, "***") if secret else text
    for pattern in _SECRETS:
        text = pattern.sub(lambda found: found[0].replace(found["secret"], "***"), text)
    return text


def make_printable(text: str) -> str:
    """Replace line breaks and other control characters, as file names may have them, by their escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
