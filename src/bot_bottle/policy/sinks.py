"""Hosts that are known for taking in whatever is sent to them, where anybody can read it again: the usual ways out. Pure.

Made for a warning, not for a refusal: nobody can list them all, and most have honest uses.
"""

from collections.abc import Mapping
from types import MappingProxyType

from bot_bottle.policy.hosts import matches

_BY_KIND = {
    "a place to paste text or files": (
        "0x0.st", "anonfiles.com", "bashupload.com", "catbox.moe", "*.catbox.moe", "controlc.com", "dpaste.com", "dpaste.org",
        "file.io", "*.file.io", "filebin.net", "gist.github.com", "gist.githubusercontent.com", "gofile.io", "*.gofile.io",
        "hastebin.com", "ix.io", "justpaste.it", "litterbox.catbox.moe", "mega.nz", "*.mega.co.nz", "oshi.at",
        "paste.ee", "paste.rs", "pastebin.com", "*.pastebin.com", "pixeldrain.com", "privatebin.net", "rentry.co", "send.vis.ee",
        "sprunge.us", "temp.sh", "termbin.com", "tmpfiles.org", "transfer.sh", "uguu.se", "wetransfer.com", "*.wetransfer.com",
    ),
    "a catcher of requests": (
        "*.beeceptor.com", "*.burpcollaborator.net", "canarytokens.com", "*.canarytokens.com", "hookb.in", "hookbin.com",
        "httpbin.org", "*.interact.sh", "interactsh.com", "*.oast.fun", "*.oast.live", "*.oast.me", "*.oast.online",
        "*.oast.pro", "*.oast.site", "*.oastify.com", "pipedream.net", "*.pipedream.net", "postb.in", "ptsv3.com",
        "requestbin.com", "*.requestbin.com", "requestbin.net", "*.requestbin.net", "*.requestcatcher.com", "requestrepo.com",
        "*.requestrepo.com", "webhook.site", "*.webhook.site", "*.dnslog.cn", "*.ceye.io",
    ),
    "a tunnel to somebody's own machine": (
        "*.ngrok.io", "*.ngrok.app", "*.ngrok.dev", "*.ngrok-free.app", "*.ngrok-free.dev", "*.loca.lt", "*.localtunnel.me",
        "*.localhost.run", "*.lhr.life", "*.serveo.net", "*.trycloudflare.com", "*.pagekite.me", "*.tunnelmole.net",
        "*.bore.pub", "bore.pub", "*.devtunnels.ms",
    ),
    "a chat or mail that takes messages from anybody": (
        "api.telegram.org", "discord.com", "discordapp.com", "*.discord.com", "hooks.slack.com", "files.slack.com",
        "hooks.zapier.com", "maker.ifttt.com", "ntfy.sh", "api.pushover.net", "api.mailgun.net", "api.sendgrid.com",
        "*.webhook.office.com", "formspree.io", "api.emailjs.com",
    ),
    "a cloud's storage, where anybody has a corner": (
        "*.amazonaws.com", "*.blob.core.windows.net", "*.digitaloceanspaces.com", "*.r2.cloudflarestorage.com", "*.r2.dev",
        "*.backblazeb2.com", "*.wasabisys.com", "storage.googleapis.com", "*.storage.googleapis.com", "api.dropboxapi.com",
        "content.dropboxapi.com", "docs.google.com", "script.google.com", "*.firebaseio.com", "graph.microsoft.com",
        "huggingface.co", "*.workers.dev",
    ),
    "a resolver of names, which carries anything in them": (
        "dns.google", "dns.google.com", "cloudflare-dns.com", "*.cloudflare-dns.com", "dns.quad9.net", "dns.nextdns.io",
        "doh.opendns.com", "dns.adguard-dns.com", "doh.cleanbrowsing.org", "mozilla.cloudflare-dns.com",
    ),
}  # fmt: skip
SINKS: Mapping[str, str] = MappingProxyType(
    {host: kind for kind, hosts in _BY_KIND.items() for host in hosts}
)
"""What each is, by a route's host."""


def sink(pattern: str) -> str:
    """What the canonical `pattern` of a route is known for, or one of the hosts that it stands for; empty for nothing."""
    if pattern.startswith("*."):
        ending = pattern[1:]
        below = (
            kind for host, kind in SINKS.items() if host.removeprefix("*").endswith(ending) or host == pattern
        )
        found = next(below, "")
        if found:
            return found
        pattern = "x" + ending
    return next(
        (kind for host, kind in SINKS.items() if matches(host, pattern) or pattern.endswith("." + host)), ""
    )
