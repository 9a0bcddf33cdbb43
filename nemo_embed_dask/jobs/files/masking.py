"""Hide secrets and control characters in texts that are shown or written."""

from __future__ import annotations

import re

# The group ``secret`` is what to hide: "key:secret" before @ in an address, or the value of name=secret in a
# query or connection string. Folder names such as /key=5/ are not secrets.
_SECRETS = (
    re.compile(r"://(?P<secret>[^/@\s:]*:[^@\s]*(?:@[^/@\s]*)*)@"),
    re.compile(
        r"(?i)(?<![\w/])(?:sig|signature|token|key|password|passwd|pwd|secret|x-(?:amz|goog)-[\w-]+|AWSAccessKeyId"
        r"|\w*account_?key|\w*sas_?token|\w*secret_?\w*|\w*access_?key\w*|\w*_(?:token|password|key))"
        r"(?:\s*=\s*|[\"']\s*:\s*)[\"']?(?P<secret>[^&;,\s\"')]+)"
    ),
)


def mask_secrets(text: str, address: str = "") -> str:
    """Replace keys, passwords, tokens and signatures by ``***``; those of ``address`` wherever they occur."""
    for pattern in _SECRETS:
        for match in pattern.finditer(address):
            credentials = match["secret"]
            password = credentials.partition(":")[2]
            for secret in filter(None, (credentials, password)):
                text = text.replace(secret, "***")
    for pattern in _SECRETS:
        text = pattern.sub(lambda match: match[0].replace(match["secret"], "***"), text)
    return text


def make_printable(text: str) -> str:
    """Replace line breaks and other control characters by escapes; file names may contain them."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
