#!/usr/bin/env bash
# Build the book: `make docs` → target/book/index.html. Links to what isn't a page lead to the repository; all others are followed,
# anchors included, and one that leads nowhere fails.
set -euo pipefail
# shellcheck source=hack/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

readonly book=target/book repository=https://github.com/voicedock/voicedock/blob/main
"$root/hack/tools.sh" docs
rm -rf "$book"
# A page that the contents don't list would be copied as it is.
mdbook build docs >&2 || fail "mdbook build docs failed: look at its output above"
find "$book" -name '*.md' -delete

# mdBook writes a README.md as index.html, and doesn't know it in links. What it makes of a link out of the book, `../README.html`, is the
# file of that name in the repository.
find "$book" -name '*.html' -exec sed --in-place --regexp-extended \
  -e "s,href=\"(runbooks/|\.\./runbooks/)?README\.html,href=\"\1index.html,g" \
  -e "s,href=\"(\.\./)+(README|CHANGELOG|CONTRIBUTING|SECURITY)\.html,href=\"$repository/\2.md,g" \
  -e "s,href=\"(\.\./)+((charts|contrib|examples|tests)/[^\"#]*)\.html,href=\"$repository/\2.md,g" \
  -e "s,href=\"(\.\./)+((charts|contrib|examples|hack|src|tests)/),href=\"$repository/\2,g" {} +

python3 - "$book" <<'END' || fail "links of the book lead nowhere: correct them in docs/"
import html.parser, os, sys, urllib.parse

class Page(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.links, self.anchors = [], set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name == "id":
                self.anchors.add(value)
            elif value and (tag, name) in {("a", "href"), ("img", "src"), ("link", "href"), ("script", "src")}:
                self.links.append(value)

pages = {}
for directory, _, files in os.walk(sys.argv[1]):
    for file in files:
        if file.endswith(".html") and file not in ("print.html", "404.html", "toc.html"):
            path = os.path.join(directory, file)
            pages[os.path.normpath(path)] = Page(open(path, encoding="utf-8").read())
wrong = seen = 0
for path, page in pages.items():
    for link in page.links:
        url = urllib.parse.urlsplit(link)
        if url.scheme or url.netloc or link.startswith("#") and len(link) == 1:
            continue
        seen += 1
        target = os.path.normpath(os.path.join(os.path.dirname(path), urllib.parse.unquote(url.path))) if url.path else path
        missing = not os.path.exists(target)
        if not missing and url.fragment and target in pages:
            missing = urllib.parse.unquote(url.fragment) not in pages[target].anchors
        if missing:
            wrong += 1
            print(f"{path}: {link} leads nowhere", file=sys.stderr)
print(f"{len(pages)} pages, {seen} links", file=sys.stderr)
sys.exit(wrong > 0 or seen < 500)
END
say "built $book/index.html"
