"""A report read back by an HTML parser."""

from html.parser import HTMLParser

VOID = {"meta", "img", "br"}
ALLOWED = {
    *("html", "head", "meta", "title", "style", "body", "h1", "h2", "section", "dl", "dt", "dd"),
    *("p", "div", "table", "thead", "tbody", "tr", "th", "td", "span", "i", "b", "br", "img"),
    *("figure", "figcaption", "small", "a", "details", "summary", "pre"),
    *("em", "code", "ul", "li", "svg", "rect", "line", "circle", "text"),
}


class Page(HTMLParser):
    """Tables by class as rows of texts, and whatever could lead elsewhere."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.links: list[str] = []
        self.sources: list[str] = []
        self.facts: list[str] = []
        self.figures: list[str] = []
        self._open: list[str] = []
        self._rows: list[list[str]] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in ALLOWED
        values = dict(attrs)
        assert not [name for name in values if name.startswith("on")]
        self.links += [str(values["href"])] if "href" in values else []
        self.sources += [str(values["src"])] if "src" in values else []
        if tag not in VOID:
            self._open.append(tag)
        if tag == "table":
            self._rows = self.tables[str(values["class"])] = []
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("th", "td"):
            self._rows[-1].append("")
        elif tag in ("dt", "dd"):
            self.facts.append("")
        elif tag == "figure":
            self.figures.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "th" in self._open or "td" in self._open:
            self._rows[-1][-1] += data
        elif "dt" in self._open or "dd" in self._open:
            self.facts[-1] += data
        elif "figcaption" in self._open:
            self.figures[-1] += data + " "
