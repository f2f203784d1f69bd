"""The web page in headless Chromium, driven over the WebDriver protocol. Skipped where Chromium and its driver are
absent; METE_CHROMIUM and METE_CHROMEDRIVER name them elsewhere. Nothing is downloaded."""
import json
import os
import shutil
import socket
import subprocess
import time
import unittest
import urllib.error
import urllib.request

from harness import TemporaryDirectory
from serving import Server

CHROMIUM = os.environ.get("METE_CHROMIUM") or shutil.which("chromium")
DRIVER = os.environ.get("METE_CHROMEDRIVER") or shutil.which("chromedriver")
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
ENTER, ESCAPE, TAB = "\ue007", "\ue00c", "\ue004"


class Browser:
    """A WebDriver session (W3C recommendation) over plain HTTP."""

    def __init__(self, folder, *extra):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        self.driver = subprocess.Popen([DRIVER, f"--port={port}", "--log-level=SEVERE"], stdout=subprocess.DEVNULL,
                                       stderr=subprocess.DEVNULL)
        self.base = f"http://127.0.0.1:{port}"
        arguments = ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--window-size=1200,900",
                     "--disable-background-networking", "--disable-component-update", f"--user-data-dir={folder}", *extra]
        self.wait(lambda: self.call("GET", "/status")["ready"])
        options = {"binary": CHROMIUM, "args": arguments}
        session = self.call("POST", "/session", {"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}}})
        self.base += "/session/" + session["sessionId"]

    def close(self):
        try:
            self.call("DELETE", "")
        finally:
            self.driver.terminate()
            self.driver.wait()

    def call(self, method, path, body=None):
        data = None if body is None and method != "POST" else json.dumps(body or {}).encode()
        request = urllib.request.Request(self.base + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return json.load(response)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{method} {path}: {error.read().decode(errors='replace')[:500]}") from error

    @staticmethod
    def wait(condition, seconds=60):
        end = time.monotonic() + seconds
        while True:
            try:
                value = condition()
                if value:
                    return value
            except (OSError, AssertionError):
                if time.monotonic() > end:
                    raise
            if time.monotonic() > end:
                raise AssertionError("the page did not get there in time")
            time.sleep(0.05)

    def go(self, url):
        self.call("POST", "/url", {"url": url})

    def script(self, text, *arguments):
        return self.call("POST", "/execute/sync", {"script": text, "args": list(arguments)})

    def find(self, css):
        return self.call("POST", "/element", {"using": "css selector", "value": css})[ELEMENT]

    def click(self, css):
        self.call("POST", f"/element/{self.find(css)}/click")

    def type(self, css, text):
        self.call("POST", f"/element/{self.find(css)}/value", {"text": text})

    def text(self, css):
        return self.script("return [...document.querySelectorAll(arguments[0])].map(e => e.textContent)", css)

    def console_errors(self):
        return [e["message"] for e in self.call("POST", "/se/log", {"type": "browser"}) if e["level"] == "SEVERE"]


@unittest.skipUnless(CHROMIUM and DRIVER, "Chromium and chromedriver are not installed")
class Page(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server("-c", "256", "-np", "2", "--chat-template", "chatml", "--temp", "0")
        cls.folder = TemporaryDirectory()
        cls.browser = Browser(cls.folder.name)

    @classmethod
    def tearDownClass(cls):
        cls.browser.close()
        cls.server.__exit__()
        cls.folder.cleanup()

    def setUp(self):
        self.browser.go(f"http://127.0.0.1:{self.server.port}/")
        self.browser.wait(lambda: "connecting" not in self.browser.text("#model")[0])

    def idle(self):
        self.browser.wait(lambda: not self.browser.script("return document.getElementById('send').disabled"))

    def ask(self, text, tokens=12):
        self.browser.script("document.getElementById('max_tokens').value = arguments[0]", tokens)
        self.browser.type("#input", text + ENTER)
        self.browser.wait(lambda: len(self.browser.text(".turn.assistant")) > 0)
        self.idle()

    def test_chat_receipt_regenerate_clear(self):
        self.ask("hello there")
        self.assertEqual(self.browser.text(".turn.user > .text"), ["hello there"])
        [answer] = self.browser.text(".turn.assistant > .text")
        expected = self.server.ok("/v1/chat/completions", {
            "messages": [{"role": "user", "content": "hello there"}], "max_tokens": 12})
        self.assertEqual(answer, expected["choices"][0]["message"]["content"])
        [receipt] = self.browser.text(".turn.assistant > .receipt")
        self.assertIn("tokens/s", receipt)
        self.assertIn("prompt", receipt)
        self.browser.click("#again")
        self.idle()
        self.assertEqual(self.browser.text(".turn.assistant > .text"), [answer])
        self.ask("and more")
        self.assertEqual(len(self.browser.text(".turn")), 4)
        self.assertIn("from the cache", self.browser.text(".turn.assistant > .receipt")[1])
        self.browser.click("#clear")
        self.assertEqual(self.browser.text(".turn"), [])

    def test_escape_stops_and_the_server_forgets(self):
        self.browser.script("document.getElementById('max_tokens').value = ''")
        self.browser.type("#input", "a long story" + ENTER)
        self.browser.wait(lambda: self.browser.script("return document.getElementById('stop').disabled === false"))
        self.browser.type("#log", ESCAPE)
        self.idle()
        self.browser.wait(lambda: not any(s["is_processing"] for s in self.server.get("/slots")[1]))

    def test_errors_are_shown(self):
        self.browser.script("document.getElementById('temperature').value = -5")
        self.ask("x")
        self.assertRegex(self.browser.wait(lambda: self.browser.text(".error"))[0], "temperature")
        self.browser.script("document.getElementById('temperature').value = 0")

    def test_memory_and_requests_are_shown(self):
        self.browser.wait(lambda: self.browser.script("return document.querySelectorAll('#memory tr').length") >= 2)
        self.assertRegex(self.browser.text("#counts")[0], r"\d+ running, \d+ waiting, 2 slots")

    def test_keyboard_and_screen_reader(self):
        self.assertEqual(self.browser.script("return document.activeElement.id"), "input")
        unnamed = self.browser.script("""return [...document.querySelectorAll('button, input, textarea')].filter(e =>
            !e.textContent.trim() && !e.labels.length && !e.getAttribute('aria-label')).map(e => e.id)""")
        self.assertEqual(unnamed, [])
        self.assertEqual(self.browser.script("return document.documentElement.lang"), "en")
        self.assertEqual(self.browser.script("return document.getElementById('status').getAttribute('aria-live')"), "polite")
        self.ask("hi")
        self.assertRegex(self.browser.text("#status")[0], "^Answer complete: ")

    def test_dark_and_light_keep_their_contrast(self):
        for scheme in ("light", "dark"):
            self.browser.call("POST", "/goog/cdp/execute", {"cmd": "Emulation.setEmulatedMedia", "params": {
                "features": [{"name": "prefers-color-scheme", "value": scheme}]}})
            ratios = self.browser.script("""
                const light = c => { const [r, g, b] = c.match(/\\d+/g).map(v => v / 255).map(
                    v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
                const ratio = (a, b) => (Math.max(light(a), light(b)) + 0.05) / (Math.min(light(a), light(b)) + 0.05);
                const style = id => getComputedStyle(document.querySelector(id));
                return [ratio(style('body').color, style('body').backgroundColor),
                        ratio(style('#model').color, style('body').backgroundColor),
                        ratio(style('#stop').color, style('#stop').backgroundColor),
                        ratio(style('#send').color, style('#send').backgroundColor)];""")
            for ratio in ratios:
                self.assertGreaterEqual(ratio, 4.5, scheme)  # WCAG 2.2, contrast (minimum)

    def test_nothing_is_fetched_from_elsewhere(self):
        self.ask("hi")
        hosts = self.browser.script(
            "return [...new Set(performance.getEntriesByType('resource').map(e => new URL(e.name).host))]")
        self.assertEqual(hosts, [f"127.0.0.1:{self.server.port}"])
        self.assertEqual([e for e in self.browser.console_errors() if "favicon" not in e and "400" not in e], [])


if __name__ == "__main__":
    unittest.main()
