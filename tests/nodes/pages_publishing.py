"""docs/publishing.md: its registry, its web server and its forge, on one node that has their names in /etc/hosts."""

import pathlib
import re
import tempfile

from lab import call, eventually
from pages import check, instead, prepare

ELSEWHERE = {}
# Rows of the page's table that have no server here, and which test has one.
BUCKETS = {"s3://": "tests/it/places.rs::a_bucket_is_published_to_and_installed_from",
           "az://": "tests/it/places.rs::a_container_of_azure_is_published_to_and_installed_from",
           "gs://": "not tried against the real one, as the page says"}
NAMES = ["releases.example", "forge.example", "registry.example"]
TOKEN = "forge-token"
# A web server of files, and a forge that takes files by PUT from who has the token, and keeps them by release.
NGINX = f"""
user root;
events {{}}
pid /run/nginx.pid;
http {{
    ssl_certificate /etc/ssl/names.pem;
    ssl_certificate_key /etc/ssl/names.key;
    client_max_body_size 0;
    server {{ listen 127.0.0.1:443 ssl; server_name releases.example; root /srv/www; }}
    server {{
        listen 127.0.0.1:443 ssl;
        server_name forge.example;
        location /shop/releases/download/ {{
            if ($http_authorization != "Bearer {TOKEN}") {{ return 401; }}
            alias /srv/forge/;
            dav_methods PUT;
            create_full_put_path on;
        }}
    }}
}}
"""
REGISTRY = """
version: 0.1
log: { level: error }
storage: { filesystem: { rootdirectory: /srv/registry } }
http: { addr: "127.0.0.2:443", tls: { certificate: /etc/ssl/names.pem, key: /etc/ssl/names.key } }
"""
REGISTRY_UNIT = "[Service]\nExecStart=/usr/bin/docker-registry serve /etc/registry.yml\n"


def serve(node):
    """The three servers, with certificates that the node trusts."""
    node.write("/etc/hosts", f"127.0.0.1 localhost {NAMES[0]} {NAMES[1]}\n127.0.0.2 {NAMES[2]}\n")
    with tempfile.TemporaryDirectory() as name:
        work = pathlib.Path(name)
        call("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
             "-subj", "/CN=names", "-addext", "subjectAltName=" + ",".join(f"DNS:{one}" for one in NAMES),
             "-addext", "basicConstraints=critical,CA:FALSE", "-keyout", work / "names.key", "-out", work / "names.pem")
        for file in ["names.key", "names.pem"]:
            node.copy(work / file, f"/etc/ssl/{file}")
        node.copy(work / "names.pem", "/etc/ssl/certs/ca-certificates.crt")
    node.write("/etc/nginx/nginx.conf", NGINX)
    node.copy("/usr/bin/docker-registry", "/usr/bin/docker-registry")
    node.write("/etc/registry.yml", REGISTRY)
    node.write("/etc/systemd/system/registry.service", REGISTRY_UNIT)
    node.call("mkdir", "-p", "/srv/www/shop", "/srv/forge", "/srv/registry", "/media/stick", "/mnt/releases/shop")
    node.call("systemctl", "daemon-reload")
    node.call("systemctl", "restart", "nginx.service", "registry.service")
    eventually("the registry listens", 20,
               lambda: node.run("sh", "-c", "echo | busybox nc -w 1 127.0.0.2 443")[0] == 0)


class Follower:
    """An application of the node that is installed from one place, anew each time."""

    def __init__(self, node):
        self.node = node

    def installs(self, url, version, credentials=""):
        self.node.call("rm", "-rf", "/srv/shop")
        self.node.call("mkdir", "-p", "/srv/shop")
        self.updates(url, version, credentials)

    def updates(self, url, version, credentials=""):
        more = f'credentials = "{credentials}"\n' if credentials else ""
        self.node.write("/etc/cutover/shop.toml",
                        f'root = "/srv/shop"\n[source]\nurl = "{url}"\n{more}[health]\nmin_healthy = "500ms"\n')
        code, told, said = self.node.run("cutover", "update")
        print(f"    from {url}: {code}", flush=True)
        active = self.node.path("/srv/shop/current").readlink().name if code == 0 else None
        check((code, active) == (0, version), f"from {url}: {code}, {active}: {told}{said}")


def build(node, words):
    node.write("/root/build/page", f"{words}\n" * 1000)
    node.write(f"/root/build/part-{words[-1]}", words * 500)


def places(page, node, follower):
    """The table of places, and what the text says of web servers, forges and sticks."""
    table = dict(re.findall(r"^\| (`[^|]*`) \| ([^|]*) \|$", page.text, re.M))
    urls = [url for row in table for url in re.findall(r"`([^`]*)`", row) if url != "url"]
    registry = next(url for url in urls if url.startswith("oci://"))
    directory = next(url for url in urls if url.startswith("/mnt"))
    web = next(url for url in urls if "releases.example" in url)
    forge = next(url for url in urls if "forge.example" in url)
    known = [registry, directory, f"file://{directory}", web, forge]
    for url in urls:
        where = next((test for start, test in BUCKETS.items() if url.startswith(start)), None)
        check(url in known or where, f"nobody goes to {url}")
        if where:
            print(f"    (not here: {url}: {where})", flush=True)

    follower.installs(registry, "1.4.2")
    said = page.type(node, "cutover copy FROM TO", FROM=registry, TO=directory, add="--all --dry-run")
    check("1.4.2 would be brought" in said and not any(node.path(directory).iterdir()), f"a dry run: {said}")
    page.type(node, "cutover copy FROM TO", FROM=registry, TO=directory, add="--all")
    follower.installs(directory, "1.4.2")
    follower.installs(f"file://{directory}", "1.4.2")
    node.call("sh", "-c", f"cp {directory}/* /srv/www/shop/")
    follower.installs(web, "1.4.2")
    stick = re.search(r'url = "(file://(/[^"]*))"', page.span('url = "file:///media')).groups()
    page.type(node, "cutover copy FROM TO", FROM=registry, TO=stick[1])
    follower.installs(stick[0], "1.4.2")

    # By PUT with the token; and without it.
    node.write("/root/token", TOKEN + "\n", 0o600)
    publish = page.lines("From git push to committed")[1]
    to = re.search(r"--to (\S+)", publish).group(1)
    page.type(node, publish, expect=1, add="--credentials /dev/null", **{to: f"'{forge}'"})
    page.type(node, publish, add="--credentials /root/token", **{to: f"'{forge}'"})
    follower.installs(forge, "1.4.2", "/root/token")
    # By the forge's own tool, in the order that the page has.
    order = "the archive, the manifest's signature and the manifest, the channel's signature, the channel"
    check(order in " ".join(page.text.split()), "the order of uploads is another one")
    instead("cp for the forge's own tool")
    node.call("rm", "-rf", "/srv/forge")
    node.call("mkdir", "-p", "/srv/forge/1.4.2", "/srv/forge/channel-stable")
    for name in ["1.4.2/shop-1.4.2.tar.zst", "1.4.2/shop-1.4.2.manifest.sig", "1.4.2/shop-1.4.2.manifest",
                 "channel-stable/stable.channel.sig", "channel-stable/stable.channel"]:
        node.call("cp", f"/root/releases/{pathlib.Path(name).name}", f"/srv/forge/{name}")
    follower.installs(forge, "1.4.2", "/root/token")
    print("    (not here: oras push …: tests/it/places.rs::a_release_that_oras_has_pushed_is_installed)", flush=True)
    return registry


def serial(node, registry):
    node.call("rm", "-rf", "/root/seen")
    node.call("mkdir", "/root/seen")
    node.call("cutover", "copy", registry, "/root/seen")
    return int(re.search(r"serial\D+(\d+)", node.path("/root/seen/stable.channel").read_text()).group(1))


def in_ci(page, node, follower, registry):
    """The scripts of examples/ci, called as the action and the template call them; the channel signed anew by the timer's unit."""
    for file in pathlib.Path("examples/ci").iterdir():
        check(file.stem in page.text, f"the page does not name {file.name}")
        node.copy(file, f"/root/ci/{file.name}")
    # The forge's channel was another one: its serials are no ground for the registry's.
    follower.installs(registry, "1.4.2")
    gitlab = pathlib.Path("examples/ci/gitlab.yml").read_text()
    action = pathlib.Path("examples/ci/action.yml").read_text()
    for version, line in {"1.4.3": re.search(r"- (\./ci/\S+)", gitlab).group(1),
                          "1.4.4": re.search(r"run: '(.*)'", action).group(1)}.items():
        build(node, f"this is {version}")
        variables = f"TREE=build PRODUCT=shop VERSION={version} TO={registry} KEY=/root/release.key CHANNEL=stable"
        code, told, said = node.run("sh", "-c", f"cd /root && export GITHUB_ACTION_PATH=ci {variables} && {line}")
        check(code == 0, f"{line}: {code}: {told}{said}")
        print(f"    {line} ({variables}): 0", flush=True)
        follower.updates(registry, version)

    node.copy("examples/ci/resign.sh", "/usr/local/lib/cutover/resign.sh")
    for unit in ["cutover-resign.service", "cutover-resign.timer"]:
        node.copy(f"examples/ci/{unit}", f"/etc/systemd/system/{unit}")
    node.call("cp", "/root/release.key", "/etc/cutover/keys/release")
    node.write("/etc/cutover/resign.env", f"PRODUCT=shop\nTO={registry}\n")
    node.call("systemctl", "daemon-reload")
    node.call("systemctl", "enable", "-q", "--now", "cutover-resign.timer")
    before = serial(node, registry)
    node.call("systemctl", "start", "cutover-resign.service")
    check(serial(node, registry) > before, "the channel was not signed anew")
    follower.updates(registry, "1.4.4")


def another_key(page, node, follower, registry):
    """A release that is signed on a machine of its own, by the key that follows the old one."""
    pack, publish = page.lines("From git push to committed")
    bring, sign, back, go_on = page.lines("Another key")
    node.call("sh", "-c", "cd /root && cutover keygen new.key")
    node.call("cp", "/root/new.key.pub", "/etc/cutover/keys/new.pub")
    build(node, "this is 1.4.5")
    page.type(node, pack, **{"1.4.2": "1.4.5"}, add="--base releases/shop-1.4.2.tar.zst")
    page.type(node, "cutover sign", add="releases/shop-1.4.5.manifest --key new.key")
    said = page.type(node, publish, expect=12, **{"1.4.2": "1.4.5", "release.key": "new.key"})
    check("not by the given key" in said, said)
    node.call("mkdir", "/root/here")
    page.type(node, bring)
    page.type(node, sign)
    page.type(node, page.span("cutover sign here/"), add="--key new.key")
    page.type(node, back)
    above = serial(node, registry) + 10
    page.type(node, go_on, **{"1.4.3": "1.4.5"}, add=f"--serial {above}")
    follower.updates(registry, "1.4.5")
    revoked = page.span("/etc/cutover/revoked")
    node.call("sh", "-c", f"cat /root/release.key.pub >{revoked}")
    follower.installs(registry, "1.4.5")
    page.type(node, go_on, **{"1.4.3": "1.4.5"}, add="--channel next")


def run(lab, page, cutover):
    node = lab.node("shop-1", "ext4")
    prepare(node, cutover)
    node.boot()
    serve(node)
    follower = Follower(node)
    build(node, "this is 1.4.2")
    node.call("mkdir", "-p", "/root/releases", "/etc/cutover/keys")
    node.call("sh", "-c", "cd /root && cutover keygen release.key")
    node.call("cp", "/root/release.key.pub", "/etc/cutover/keys/release.pub")
    pack, publish = page.lines("From git push to committed")
    page.type(node, pack)
    said = page.type(node, publish, add="--dry-run")
    check("1.4.2" in said and not list(node.path("/root/releases").glob("*.sig")), f"a dry run: {said}")
    page.type(node, publish)
    page.type(node, publish)
    registry = places(page, node, follower)
    in_ci(page, node, follower, registry)
    another_key(page, node, follower, registry)
    lab.drop(node)
