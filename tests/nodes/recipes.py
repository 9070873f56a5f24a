"""The recipes of docs/recipes.md, and docs/leaving.md, word by word on a real systemd node.

Blocks of code are used as they stand: commands are run one by one, settings go to the files that the text names, units are
made of the `ExecStart=` that the text gives. What the text leaves to the reader, the application itself, is below.
"""

import os
import pathlib
import re
import shutil
import sys
import tempfile

from lab import Failed, Lab, call, eventually

DOCS = pathlib.Path("docs")
UNIT = """
[Unit]
Description=The shop
[Service]
ExecStart={start}
[Install]
WantedBy=multi-user.target
"""
SERVER_JS = """
const page = require("fs").readFileSync(__dirname + "/page.txt");
require("http").createServer((request, answer) => answer.end(page)).listen(3000, "127.0.0.1");
"""
WSGI = """
page = open(__file__.replace("wsgi.py", "page.txt"), "rb").read()
def application(environment, start):
    start("200 OK", [])
    return [page]
"""
SHOP_JAVA = """
import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;
public class Shop {
    public static void main(String[] words) throws Exception {
        byte[] page = Shop.class.getResourceAsStream("/page.txt").readAllBytes();
        HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", 8080), 0);
        server.createContext("/", exchange -> {
            exchange.sendResponseHeaders(200, page.length);
            exchange.getResponseBody().write(page);
            exchange.close();
        });
        server.start();
    }
}
"""
SHOP_GO = """
package main

import (
	_ "embed"
	"net/http"
)

//go:embed page.txt
var page []byte

func main() {
	http.HandleFunc("/", func(answer http.ResponseWriter, _ *http.Request) { answer.Write(page) })
	http.ListenAndServe("127.0.0.1:8080", nil)
}
"""
NGINX = """
user www-data;
events {}
pid /run/nginx.pid;
http { server { listen 127.0.0.1:80; index index.html; %s } }
"""
PHP = """
root /srv/shop/current;
location ~ \\.php$ {
    include fastcgi_params;
    %s
    fastcgi_pass unix:/run/php/php8.2-fpm.sock;
}
"""

CONTAINERFILE = """
FROM scratch
COPY busybox library /bin/
COPY up /www/
STOPSIGNAL KILL
CMD {command}
"""
# A node is a container itself: it has no controllers of groups, may keep no keys, and its root is an overlay.
PODMAN = {
    "/etc/containers/containers.conf": "[containers]\npids_limit = 0\nkeyring = false\n",
    "/etc/containers/storage.conf":
        '[storage]\ndriver = "overlay"\ngraphroot = "/srv/containers"\nrunroot = "/run/containers/storage"\n',
}


def section(document, heading):
    """The blocks of a section: (language, text)."""
    text = (DOCS / document).read_text()
    part = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.S | re.M)
    if not part:
        raise Failed(f"{document} has no section `{heading}`")
    return part.group(1), re.findall(r"^```(\w+)\n(.*?)^```", part.group(1), re.S | re.M)


def check(is_so, text):
    if not is_so:
        raise Failed(text)


class Recipe:
    """One section, on one node."""

    def __init__(self, node, heading):
        self.node = node
        self.text, self.blocks = section("recipes.md", heading)
        for place in ["/srv/shop", "/srv/site", "/srv/source", "/etc/cutover/shop.toml", "/etc/cutover/site.toml",
                      "/etc/cutover/shop.toml.d", "/etc/cutover/site.toml.d"]:
            node.call("rm", "-rf", place)
        node.call("mkdir", "-p", "/srv/shop", "/srv/site", "/srv/source", "/etc/cutover")

    def shell(self, version="2.4.1"):
        for line in self.block("sh").splitlines():
            self.type(line.replace("2.4.1", version))

    def type(self, line):
        print(f"    $ {line}", flush=True)
        script = f"cd /srv/source && export PIP_NO_INDEX=1 PIP_FIND_LINKS=/root/wheels && {line}"
        code, told, said = self.node.run("sh", "-c", script, timeout=600)
        check(code == 0, f"`{line}` ended with {code}: {told[-800:]}{said[-800:]}")
        return told

    def block(self, language):
        return next(text for found, text in self.blocks if found == language)

    def configure(self, app="shop"):
        settings = self.block("toml")
        self.node.write(f"/etc/cutover/{app}.toml", settings)
        # How long a trial lasts is no part of a recipe.
        self.node.write(f"/etc/cutover/{app}.toml.d/quick.toml", '[health]\nmin_healthy = "2s"\n')
        start = re.search(r"ExecStart=(.*)", self.text)
        if start and "[Service]" not in self.text:
            self.node.write("/etc/systemd/system/shop.service", UNIT.format(start=start.group(1).strip()))
        elif start:
            self.node.write("/etc/systemd/system/shop.service", self.block("ini") + "\n[Install]\nWantedBy=multi-user.target\n")
        self.node.call("systemctl", "daemon-reload")
        if start:
            self.node.call("systemctl", "enable", "shop.service")
        self.node.call("cutover", "config", "check")

    def page(self, address, *options):
        return self.node.run("wget", "-q", "-O", "-", *options, address)[1].strip()

    def serves(self, address, wanted, *options):
        eventually(f"`{wanted}` at {address}: {self.page(address, *options)!r}", 10,
                   lambda: self.page(address, *options) == wanted)

    def update(self, version):
        self.type(f"cutover update shop-{version}.tar.zst --allow-unsigned")


def node_js(node):
    """Node.js: npm ci, pack, update, update"""
    if not shutil.which("npm"):
        return "SKIPPED: no npm on this machine"
    node.copy("/usr/bin/node", "/usr/bin/node")
    npm = pathlib.Path("/usr/bin/npm").resolve().parent.parent
    node.copy(npm, "/usr/lib/node_modules/npm")
    node.call("ln", "-sf", "/usr/lib/node_modules/npm/bin/npm-cli.js", "/usr/bin/npm")
    recipe = Recipe(node, "Node.js")
    node.write("/srv/source/server.js", SERVER_JS)
    node.write("/srv/source/package.json",
               '{"name": "shop", "version": "1.0.0", "scripts": {"build": "cp source.txt page.txt"}}')
    node.write("/srv/source/package-lock.json", '{"name": "shop", "version": "1.0.0", "lockfileVersion": 3, "requires": true,'
               ' "packages": {"": {"name": "shop", "version": "1.0.0"}}}')
    recipe.configure()
    for version in ["2.4.1", "2.4.2"]:
        node.write("/srv/source/source.txt", f"this is {version}\n")
        recipe.shell(version)
        recipe.type(f"cutover update ../shop-{version}.tar.zst --allow-unsigned")
        recipe.serves("http://127.0.0.1:3000/up", f"this is {version}")
        held = node.call("sh", "-c", "ls -R /srv/shop/current/")
        check(".zst" not in held, f"archives are in the release: {held}")
    return None


def leaving(node):
    """leaving cutover: the node of the recipe before goes on by hand, and nothing is left"""
    text = (DOCS / "leaving.md").read_text()
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.S | re.M)
    by_hand = re.search(r"`(ln -s releases/NAME [^`]*)`", text, re.S).group(1).replace("\n", " ")
    node.call("systemctl", "enable", "cutover@shop.timer", "cutover-recover@shop.service")
    for line in blocks[0].splitlines():
        node.call("sh", "-c", line)
    enabled = node.run("systemctl", "is-enabled", "cutover@shop.timer")[1].strip()
    check(enabled == "disabled", f"the timer is {enabled}")
    node.call("sh", "-c", f"cd /srv/shop && {by_hand.replace('NAME', '2.4.1')} && systemctl restart shop.service")
    eventually("2.4.1 serves", 10,
               lambda: node.run("wget", "-q", "-O", "-", "http://127.0.0.1:3000/")[1] == "this is 2.4.1\n")
    for line in blocks[1].splitlines():
        if not line.startswith("apt"):
            node.call("sh", "-c", line)
    check(not node.path("/srv/shop/.cutover").exists() and not node.path("/etc/cutover/shop.toml").exists(), "left behind")
    check(node.run("wget", "-q", "-O", "-", "http://127.0.0.1:3000/")[1] == "this is 2.4.1\n", "it does not serve any more")
    node.call("systemctl", "disable", "-q", "--now", "shop.service")


def python(node):
    """Python: a virtual environment that was made elsewhere, gunicorn as a module"""
    wheels = pathlib.Path(os.environ.get("CUTOVER_WHEELS", "nowhere"))
    if not list(wheels.glob("gunicorn-*")):
        return "SKIPPED: pip could not download gunicorn"
    node.copy(wheels, "/root/wheels")
    recipe = Recipe(node, "Python")
    node.write("/srv/source/requirements.txt", "gunicorn\n")
    node.write("/srv/source/shop/__init__.py", "")
    node.write("/srv/source/shop/wsgi.py", WSGI)
    node.write("/etc/cutover/shop.toml", 'root = "/srv/shop"\n[service]\nunits = ["shop.service"]\n'
               '[[health.check]]\nname = "answers"\nhttp = { url = "http://127.0.0.1:8000/" }\n')
    node.write("/etc/systemd/system/shop.service", recipe.block("ini") + "\n[Install]\nWantedBy=multi-user.target\n")
    node.call("systemctl", "daemon-reload")
    for version in ["2.4.1", "2.4.2"]:
        node.write("/srv/source/shop/page.txt", f"this is {version}\n")
        recipe.shell(version)
        recipe.update(version)
        recipe.serves("http://127.0.0.1:8000/", f"this is {version}")
    node.call("rm", "-rf", "/srv/source/build")
    node.call("systemctl", "restart", "shop.service")
    recipe.serves("http://127.0.0.1:8000/", "this is 2.4.2")
    node.call("systemctl", "disable", "-q", "--now", "shop.service")
    return None


JAVA_AND_GO = "Java, Go and other programs in one file"


def java(node):
    """Java: a jar, started by the node's java; a small change of a large jar that is not compressed is a small fetch"""
    found = shutil.which("java") and shutil.which("jar")
    if not found:
        return "SKIPPED: no JDK on this machine"
    home = pathlib.Path(found).resolve().parent.parent
    node.copy(home, home)
    for settings in pathlib.Path("/etc").glob("java-*-openjdk"):
        node.copy(settings, settings)
    node.call("ln", "-sf", home / "bin/java", "/usr/bin/java")
    recipe = Recipe(node, JAVA_AND_GO)
    packed = re.search(r"`jar (--no-compress)`", recipe.text).group(1)
    recipe.configure()
    with tempfile.TemporaryDirectory() as name:
        work = pathlib.Path(name)
        (work / "Shop.java").write_text(SHOP_JAVA)
        call("javac", "-d", work / "classes", work / "Shop.java")
        (work / "classes/library").write_bytes(os.urandom(8 << 20))
        for version in ["2.4.1", "2.4.2"]:
            (work / "classes/page.txt").write_text(f"UP: this is {version}\n")
            call("jar", "--create", packed, "--file", work / "shop.jar", "--main-class", "Shop", "-C", work / "classes", ".")
            node.copy(work / "shop.jar", "/srv/source/build/shop.jar")
            recipe.shell(version)
            if version == "2.4.2":
                told = recipe.type(f"cutover update shop-{version}.tar.zst --allow-unsigned --dry-run")
                print(f"      {told.strip()}", flush=True)
            recipe.update(version)
            recipe.serves("http://127.0.0.1:8080/", f"UP: this is {version}")
    node.call("systemctl", "disable", "-q", "--now", "shop.service")
    return None


def go(node):
    """Go: one program that asks nothing of the node"""
    if not shutil.which("go"):
        return "SKIPPED: no Go on this machine"
    recipe = Recipe(node, JAVA_AND_GO)
    start = re.search(r"`ExecStart=(/srv/shop/current/[^`]*)`", recipe.text).group(1)
    build = re.search(r"`(CGO_ENABLED=0 go build)`", recipe.text).group(1)
    recipe.configure()
    node.write("/etc/systemd/system/shop.service", UNIT.format(start=start))
    node.call("systemctl", "daemon-reload")
    with tempfile.TemporaryDirectory() as name:
        work = pathlib.Path(name)
        (work / "go.mod").write_text("module shop\n")
        (work / "shop.go").write_text(SHOP_GO)
        for version in ["2.4.1", "2.4.2"]:
            (work / "page.txt").write_text(f"UP: this is {version}\n")
            call("sh", "-c", f"cd {work} && GOCACHE={work}/cache GOFLAGS=-mod=mod {build} -o shop .")
            node.copy(work / "shop", "/srv/source/build/shop")
            recipe.shell(version)
            recipe.update(version)
            recipe.serves("http://127.0.0.1:8080/", f"UP: this is {version}")
    node.call("systemctl", "disable", "-q", "--now", "shop.service")


def static(node):
    """static files behind nginx: the pointer moves, nothing is restarted"""
    recipe = Recipe(node, "Static files behind nginx")
    where = re.search(r"`(root /srv/site/current;)`", recipe.text).group(1)
    node.write("/etc/nginx/nginx.conf", NGINX % where)
    recipe.configure("site")
    node.call("systemctl", "restart", "nginx.service")
    began = node.call("systemctl", "show", "nginx.service", "--property=ActiveEnterTimestampMonotonic")
    for version in ["1", "2"]:
        node.write(f"/srv/source/{version}/index.html", f"<html>this is {version}</html>\n")
        recipe.type(f"cutover pack {version} --product site --version {version} -o site-{version}.tar.zst")
        recipe.type(f"cutover --app site update site-{version}.tar.zst --allow-unsigned")
        recipe.serves("http://127.0.0.1/", f"<html>this is {version}</html>")
    check(began == node.call("systemctl", "show", "nginx.service", "--property=ActiveEnterTimestampMonotonic"), "restarted")


def php(node):
    """PHP-FPM behind nginx: a reload is enough for new code, and uploads stay"""
    recipe = Recipe(node, "PHP-FPM behind nginx")
    parameter = re.search(r"`(fastcgi_param SCRIPT_FILENAME [^`]*)`", recipe.text).group(1)
    node.write("/etc/nginx/nginx.conf", NGINX % (PHP % parameter))
    node.call("mkdir", "-p", "/srv/shop/shared/uploads")
    node.write("/srv/shop/shared/uploads/photo", "a photo")
    recipe.configure()
    node.call("systemctl", "restart", "nginx.service", "php8.2-fpm.service")
    for version in ["1", "2"]:
        node.write(f"/srv/source/{version}/up.php", f"<?php echo 'up: {version} ', file_get_contents('uploads/photo');")
        recipe.type(f"cutover pack {version} --product shop --version {version} -o shop-{version}.tar.zst")
        recipe.update(version)
        recipe.serves("http://127.0.0.1/up.php", f"up: {version} a photo", "--header", "Host: shop.example.org")
    node.call("systemctl", "stop", "nginx.service", "php8.2-fpm.service")


def migration(node):
    """a database migration: the table's epochs let each release go back to its neighbour with the data of the newer one"""
    recipe = Recipe(node, "A database migration")
    rows = re.findall(r"^\| (\d) \|.*\| `(--data-read [^`]*)` \|$", recipe.text, re.M)
    check(len(rows) == 4, f"the table has {rows}")
    data = re.search(r'\[\[data\]\] (path = "[^"]*")', recipe.text).group(1)
    node.write("/etc/cutover/shop.toml", f'root = "/srv/shop"\n[[data]]\n{data}\n')
    node.write("/srv/shop/data/rows", "of 1")
    for version, epochs in rows:
        node.write(f"/srv/source/{version}/.cutover/hooks/post-switch",
                   f"#!/bin/sh\necho of {version} >/srv/shop/data/rows\n", 0o755)
        recipe.type(f"cutover pack {version} --product shop --version {version} {epochs} -o shop-{version}.tar.zst")
        recipe.update(version)
        if version == "1":
            continue
        recipe.type("cutover rollback --no-hold --reason 'a test'")
        rows_now = node.path("/srv/shop/data/rows").read_text().strip()
        check(rows_now == f"of {version}", f"back from {version} the data are {rows_now}")
        recipe.type(f"cutover mark-good {version}")
        recipe.update(version)


def quadlet(node):
    """a container by podman's quadlet: the image in the release; a sick one goes back, also when its image was pruned"""
    found = node.run("podman", "--version")[1].split()
    if not found:
        return "SKIPPED: no podman on this node"
    if tuple(map(int, found[-1].split(".")[:2])) < (4, 4):
        return f"SKIPPED: podman {found[-1]} has no quadlet (4.4 or later)"
    recipe = Recipe(node, "A container by podman's quadlet")
    commands, hook = (text for language, text in recipe.blocks if language == "sh")
    for path, text in PODMAN.items():
        node.write(path, text)
    node.write("/etc/containers/systemd/shop.container", recipe.block("ini"))
    node.call("cp", "/usr/bin/busybox", "/srv/source/busybox")
    node.write("/srv/source/load-image", hook)
    node.path("/srv/source/library").write_bytes(os.urandom(32 << 20))
    node.call("mkdir", "-p", "/srv/shop")
    recipe.configure()
    serve = '["/bin/busybox", "httpd", "-f", "-p", "8080", "-h", "/www"]'
    for version, command in [("2.4.1", serve), ("2.4.2", serve), ("2.4.3", '["/bin/busybox", "false"]')]:
        node.write("/srv/source/Containerfile", CONTAINERFILE.format(command=command))
        node.write("/srv/source/up", f"this is {version}\n")
        for line in commands.splitlines():
            recipe.type(line.replace("2.4.1", version))
        node.call("podman", "rmi", f"localhost/shop:{version}")
        archive = f"/srv/source/shop-{version}.tar.zst"
        if version == "2.4.2":
            print(f"      {recipe.type(f'cutover update {archive} --allow-unsigned --dry-run').strip()}", flush=True)
        # As the timer starts it: within the walls of its unit.
        node.write("/etc/systemd/system/cutover@shop.service.d/file.conf",
                   f"[Service]\nExecStart=\nExecStart=/usr/bin/cutover --app shop update {archive} --allow-unsigned\n")
        node.call("systemctl", "daemon-reload")
        code = node.run("systemctl", "start", "cutover@shop.service")[0]
        stays = version if command == serve else "2.4.2"
        check((code == 0) == (stays == version), f"the update to {version} ended with {code}: {node.call('cutover', 'log')}")
        recipe.serves("http://127.0.0.1:8080/up", f"this is {stays}")
    last = node.call("cutover", "log").splitlines()[0]
    check("rolled back" in last and "shop.service" in last, f"the sick release: {last}")
    recipe.type("podman image prune --all --force")
    recipe.type("cutover rollback --no-hold --reason 'a test'")
    recipe.serves("http://127.0.0.1:8080/up", "this is 2.4.1")
    node.reboot()
    recipe.serves("http://127.0.0.1:8080/up", "this is 2.4.1")
    return None


RECIPES = [node_js, leaving, python, java, go, static, php, migration]
# Runs when it is named: it wants a node of a newer Debian.
ON_NEWER = [quadlet]


def main(image, name, cutover, *words):
    lab = Lab(image, name)
    failed = False
    try:
        node = lab.node("n1", "ext4")
        node.copy(cutover, "/usr/bin/cutover")
        for unit in sorted(pathlib.Path("systemd").iterdir()):
            node.copy(unit, f"/usr/lib/systemd/system/{unit.name}")
        node.boot()
        for recipe in [found for found in RECIPES + ON_NEWER if found.__name__ in words] if words else RECIPES:
            try:
                note = recipe(node)
                print(f"ok   {recipe.__doc__}{f' ({note})' if note else ''}", flush=True)
            except Failed as why:
                failed = True
                print(f"FAIL {recipe.__doc__}: {why}", flush=True)
    finally:
        lab.end()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
