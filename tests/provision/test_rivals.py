"""A repository that has an MCP server by supervise's name is told of, however it writes it; one that has none is not."""

import os

import pytest

from bot_bottle.provision.rivals import rivals

HAVING = {
    "plain toml": ("codex", ".codex/config.toml", '[mcp_servers.supervise]\ncommand = "x"\n'),
    "escaped toml": ("codex", ".codex/config.toml", '[mcp_servers."\\u0073upervise"]\ncommand = "x"\n'),
    "broken toml": ("codex", ".codex/config.toml", "[mcp_servers.supervise\n"),
    "plain json": ("gemini", ".gemini/settings.json", '{"mcpServers": {"supervise": {}}}'),
    "other letters": ("gemini", ".gemini/settings.json", '{"mcpServers": {"Supervise": {}}}'),
    "escaped json": ("gemini", ".gemini/settings.json", '{"mcpServers": {"\\u0073upervise": {}}}'),
    "comments": ("opencode", "opencode.jsonc", '{// mine\n"mcp": {"\\u0053upervise": {}}}'),
    "another place": ("opencode", ".opencode/opencode.json", '{"mcp": {"supervise": {}}}'),
    "too long": ("opencode", "opencode.json", " " * (1 << 20) + "{}"),
}
HAVING_NONE = {
    "another server": (
        "gemini",
        ".gemini/settings.json",
        '{"mcpServers": {"docs": {}}, "note": "supervise"}',
    ),
    "no servers": ("codex", ".codex/config.toml", 'model = "supervise"\n'),
    "no map": ("opencode", "opencode.json", "[]"),
    "another tool's": ("codex", ".gemini/settings.json", '{"mcpServers": {"supervise": {}}}'),
}


def write(folder, name: str, text: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(text)


@pytest.mark.parametrize("case", HAVING)
def test_one_that_has_it_is_told_of(tmp_path, case):
    provider, name, text = HAVING[case]
    write(tmp_path, name, text)
    [said] = rivals(str(tmp_path), provider)
    assert name in said


@pytest.mark.parametrize("case", HAVING_NONE)
def test_one_that_has_none_is_not(tmp_path, case):
    provider, name, text = HAVING_NONE[case]
    write(tmp_path, name, text)
    assert rivals(str(tmp_path), provider) == ()


def test_nothing_outside_the_repository_is_looked_at_and_nothing_waits(tmp_path):
    repository = tmp_path / "repository"
    repository.mkdir()
    write(tmp_path, "outside.json", "{}")
    (repository / "opencode.json").symlink_to(tmp_path / "outside.json")
    os.mkfifo(repository / "opencode.jsonc")
    assert len(rivals(str(repository), "opencode")) == 2
