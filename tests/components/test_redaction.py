"""Secrets are taken out by where they stand, and nothing else is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.redaction import clean, has_login, shown


@pytest.mark.parametrize(("text", "expected"), [
    ("https://me:hunter2@host/a", "https://host/a"),
    ("https://hunter2@host/a", "https://host/a"),
    ("postgresql://me:hun@ter2@host:5432/db", "postgresql://host:5432/db"),
    ("failed: s3://key:hunter2@bucket/x (403)", "failed: s3://bucket/x (403)"),
    ("https://host/a?X-Amz-Signature=hunter2&x=1", "https://host/a?X-Amz-Signature=***&x=1"),
    ("https://host/a?x=1&access_token=hunter2", "https://host/a?x=1&access_token=***"),
    ("Authorization: Bearer hunter2hunter2", "Authorization: Bearer ***"),
    ('["https://a:hunter2@b", "c@d"]', '["https://b", "c@d"]'),
])
def test_secrets_in_text(text: str, expected: str) -> None:
    assert shown(text) == expected
    assert "hunter2" not in shown(text)


@pytest.mark.parametrize("text", ["models:/name@champion", "git+https://host/repo.git@v1", "s3://bucket/a@b.mp4",
                                  "sqlite:////tmp/a@b/mlflow.db", "me@example.org", "https://host/?page=2"])
def test_what_is_no_secret_stays(text: str) -> None:
    assert shown(text) == text
    assert not has_login(text)


@pytest.mark.parametrize("name", ["password", "AWS_SECRET_ACCESS_KEY", "api_key", "apiKey", "KFP_TOKEN", "cookie",
                                  "Authorization", "credentials", "private_key"])
def test_values_are_dropped_by_their_names(name: str) -> None:
    assert clean({name: "hunter2", "group": {name: ["hunter2"], "kept": 1}, name + "s": {"a": "hunter2"}}) == {
        "group.kept": "1"}


WORD = st.text("abcXYZ0189_.~!$*+-%", min_size=8, max_size=20)


@given(user=WORD, password=WORD, host=st.sampled_from(["host", "10.0.0.1:5000"]), path=st.sampled_from(["", "/a/b@c"]))
def test_no_login_survives(user: str, password: str, host: str, path: str) -> None:
    address = f"https://{user}:{password}@{host}{path}"
    assert shown(f"x {address} y") == f"x https://{host}{path} y"
    assert clean({"a": [address], "b": {"c": address}}) == {"a": f'["https://{host}{path}"]',
                                                           "b.c": f"https://{host}{path}"}
