import random
import string

import pytest

from hf_ext.secret_patterns import (
    PATTERNS,
    environment_secrets,
    find_secrets,
    without_password,
    without_secrets,
)

LETTERS = string.ascii_letters + string.digits


def made_up(prefix, length, letters=LETTERS):
    """A secret of the right form; made here, so that no file of the project holds one."""
    return prefix + "".join(random.Random(prefix + str(length)).choices(letters, k=length - 1)) + "7"


SECRETS = {
    "a Hugging Face token": made_up("hf_", 34),
    "a GitHub token": made_up("ghp_", 36),
    "an API key (sk-...)": made_up("sk-proj-", 40),
    "an AWS access key": made_up("AKIA", 16, string.ascii_uppercase),
    "an AWS secret key": "aws_secret_access_key = " + made_up("", 40),
    "a Google API key": made_up("AIza", 35),
    "a Slack token": made_up("xoxb-", 24, string.digits),
    "a Weights & Biases key": "WANDB_API_KEY=" + made_up("", 40, "0123456789abcdef"),
    "a private key": "-----BEGIN " + "RSA PRIVATE KEY-----",
    "a password in a URL": "postgresql://me:" + made_up("", 10) + "@host:5432/db",
    "a password or key that is set": '"password": "' + made_up("", 12) + '"',
}


def test_every_kind_has_an_example():
    assert set(SECRETS) == set(PATTERNS)


@pytest.mark.parametrize("kind", SECRETS)
def test_each_kind_is_found_with_its_line(kind):
    lines = ["a line", f"some words {SECRETS[kind]} and more", "another"]
    assert list(find_secrets(lines, {})) == [(2, kind)]
    assert SECRETS[kind] not in without_secrets(lines[1], {})


@pytest.mark.parametrize("kind", ["a Hugging Face token", "a GitHub token", "an AWS access key", "an API key (sk-...)"])
def test_a_word_list_in_lower_case_hides_none(kind):
    assert list(find_secrets([f'"{SECRETS[kind].lower()}": 17'], {})) == [(1, kind)]


@pytest.mark.parametrize(
    "text",
    [
        '"pad_token": "<pad>", "unk_token": "[UNK]", "mask_token": "<mask>"',
        "SHA-256 of the rows: " + "0123456789abcdef" * 4,
        "git_commit: " + "0123456789abcdef0123456789abcdef01234567",
        "a task-specific-and-rather-long-word-2024, a risk-taking one",
        "https://huggingface.co/me/model/blob/main/README.md?x=1:2@3",
        "http://localhost:8080/a@b",
        "mail me: me@example.org, or see https://example.org:443/~me",
        "postgresql://me:***@host/db",
        "hf_ext, hf_hub_download, hf_transfer",
        "def f(token: str, password=None): ...",
        '"password": 1203, "secret": 77, "##password": 5',
    ],
)
def test_what_only_looks_like_one_is_left_alone(text):
    assert list(find_secrets([text], {})) == []


def test_the_values_of_the_environment_are_looked_for():
    values = {
        "MY_TOKEN": "correct-horse",
        "WANDB_API_KEY": "Battery-Staple",
        "DB_PASSWORD": "short",
        "HOME": "/home/me",
    }
    values |= {"GOOGLE_APPLICATION_CREDENTIALS": "/etc/keys.json", "TOKENIZERS_PARALLELISM": "falsefalse"}
    known = environment_secrets(values)
    assert set(known.values()) == {"correct-horse", "Battery-Staple"}
    found = list(find_secrets(["battery-staple", "", "correct-horse and falsefalse short"], known))
    assert found == [
        (1, "the value of the environment variable WANDB_API_KEY"),
        (3, "the value of the environment variable MY_TOKEN"),
    ]
    assert without_secrets("it is correct-horse", known) == "it is ***"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:p:w@host/db", "postgresql://me:***@host/db"),
        ("mysql+pymysql://:secret@host", "mysql+pymysql://:***@host"),
        ("sqlite:///study.db", "sqlite:///study.db"),
        ("see http://a.b/c and http://u:p@d/e", "see http://a.b/c and http://u:***@d/e"),
        ("at 10:30, me@example.org", "at 10:30, me@example.org"),
    ],
)
def test_passwords_in_urls_are_not_shown(url, shown):
    assert without_password(url) == shown
