"""Stores that refuse or do not answer: one line that names the address and what to check, quickly, without secrets."""

from __future__ import annotations

import json
import logging
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from azure.storage.blob import AccountSasPermissions, ResourceTypes, generate_account_sas
from click.testing import CliRunner

from nemo_embed_dask import JobError, embed_parquet
from nemo_embed_dask.cli.main import main
from nemo_embed_dask.jobs.files import reachability

from ...helpers import faults
from ...helpers.stores import AZURE_ACCOUNT, AZURE_SECRET, SECRET, STORES, free_port

# Client libraries leave connections to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
# Client libraries try for one to six minutes; this is for a busy machine.
QUICK_S = 20


@pytest.fixture
def command(monkeypatch, caplog, model):
    """Run a command in this process with an environment; return its exit code and the one line that it prints."""

    def call(environment, *arguments):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        caplog.set_level(logging.DEBUG, "nemo_embed_dask")
        flags = [] if arguments[0] in {"report", "errors"} else ["--model-identifier", str(model)]
        result = CliRunner().invoke(main, [*map(str, arguments), *flags])
        lines = [line for line in result.output.splitlines() if not line.startswith("no progress for")]
        assert len(lines) == 1 and lines[0].startswith("nemo-embed: "), result.output
        secrets = (SECRET, AZURE_SECRET)
        assert not [secret for secret in secrets if secret in result.output + caplog.text]
        return result.exit_code, lines[0]

    return call


ADDRESSES = {"s3": "s3://box/x", "azure": "abfs://box/x", "google": "gs://box/x"}
NOWHERE = {
    "refused": ("http://127.0.0.1:{port}", "Connection refused"),
    "unknown host": ("http://no-such-host.invalid:{port}", ""),
}


@pytest.mark.parametrize("kind", ADDRESSES)
@pytest.mark.parametrize("why", NOWHERE)
def test_a_store_that_is_not_there(command, kind, why, source, tmp_path, monkeypatch):
    monkeypatch.setattr(reachability, "_PAUSE_S", 0.01)
    url, reason = NOWHERE[why]
    port = free_port()
    environment = STORES[kind](port).environment(url.format(port=port))
    address = ADDRESSES[kind]
    for arguments in (
        (address, tmp_path / "out"),
        (source, address),
        ("report", address),
        ("errors", address),
        ("plan", address),
    ):
        start = time.monotonic()
        code, line = command(environment, *arguments)
        assert code == 2 and time.monotonic() - start < QUICK_S
        assert f"{address} cannot be reached (nothing answers at {url[7:].format(port=port)}: {reason}" in line
        assert "check the endpoint" in line


def test_no_such_bucket(store, command, model, source, tmp_path):
    code, line = command(store.environment(), store.address("nobucket/in"), tmp_path / "out")
    assert code == 2 and "nobucket/in" in line and "check the address" in line
    with pytest.raises(
        JobError, match=r"nobucket/out.* cannot be written .*; create the bucket or container"
    ) as caught:
        to_store(store, source, "nobucket/out", model, store.options())
    assert not caught.value.temporary


def to_store(store, source, path, model, options, **more):
    target = store.address(path)
    return embed_parquet(faults.stage(model), str(source), target, target_options=options, **more)


@contextmanager
def wrong_key(store, bucket):
    """Options with a key that the server does not know."""
    if store.protocol == "abfs":
        yield store.options(secret=AZURE_SECRET[::-1].replace("=", "") + "==")
        return
    store.check_access(enforced=True)
    yield store.options(key="AKIAUNKNOWN")
    store.check_access(enforced=False)


@contextmanager
def read_only(store, bucket):
    """Options of a user who may read and list."""
    if store.protocol == "abfs":
        permission, until = AccountSasPermissions(read=True, list=True), datetime.now(UTC) + timedelta(hours=1)
        kinds = ResourceTypes(service=True, container=True, object=True)
        sas = generate_account_sas(AZURE_ACCOUNT, AZURE_SECRET, kinds, permission, until)
        yield {"connection_string": f"BlobEndpoint={store.url}/{AZURE_ACCOUNT};SharedAccessSignature={sas}"}
        return
    import boto3

    iam = boto3.client("iam", endpoint_url=store.url, aws_access_key_id="x", aws_secret_access_key="x",
                       region_name="us-east-1")  # fmt: skip
    iam.create_user(UserName=bucket)
    allowed = {"Effect": "Allow", "Action": ["s3:Get*", "s3:List*"], "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
    iam.put_user_policy(UserName=bucket, PolicyName="reader", PolicyDocument=policy)
    key = iam.create_access_key(UserName=bucket)["AccessKey"]
    store.check_access(enforced=True)
    yield store.options(key=key["AccessKeyId"], secret=key["SecretAccessKey"])
    store.check_access(enforced=False)


CHECKING = pytest.mark.parametrize(
    "store", ["s3", pytest.param("azure", marks=pytest.mark.azurite)], indirect=True
)


@CHECKING
def test_wrong_credentials(store, bucket, model, source, tmp_path, caplog):
    address = store.upload(source, bucket, "in")
    with wrong_key(store, bucket) as options:
        for look in (
            lambda: embed_parquet(faults.stage(model), address, str(tmp_path / "out"), storage_options=options),
            lambda: to_store(store, source, f"{bucket}/out", model, options),
        ):
            start = time.monotonic()
            with pytest.raises(
                JobError, match=rf"{bucket}/\S+ cannot be \w+ \(.*\); check the credentials"
            ) as caught:
                look()
            assert time.monotonic() - start < QUICK_S and not caught.value.temporary
            assert not any(value in str(caught.value) + caplog.text for value in options.values())


@CHECKING
def test_a_store_that_may_only_be_read(store, bucket, model, source, expected, tmp_path):
    """Inputs can be read; a target is an error that stops the job at its first file."""
    address = store.upload(source, bucket, "in")
    with read_only(store, bucket) as options:
        report = embed_parquet(faults.stage(model), address, str(tmp_path / "out"), storage_options=options)
        assert report.complete
        faults.assert_same(tmp_path / "out", expected)
        start = time.monotonic()
        with pytest.raises(
            JobError, match=rf"{bucket}/out/_\w+(/manifest.json)? cannot be (written|removed)"
        ) as caught:
            to_store(store, source, f"{bucket}/out", model, options)
        assert "check the credentials and their permissions" in str(caught.value)
        assert time.monotonic() - start < QUICK_S and not caught.value.temporary
    assert store.names(bucket, "out") == []
