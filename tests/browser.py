"""Headless Chromium for the tests that look at pages; they are skipped where it is not installed."""

import contextlib
import shutil

import pytest


@contextlib.contextmanager
def chromium(*arguments, **capabilities):
    """A Selenium driver; `arguments` of Chromium come after those that it needs in a container."""
    driver, program = shutil.which("chromedriver"), shutil.which("chromium") or shutil.which("chromium-browser")
    if not driver or not program:
        pytest.skip("no chromium with chromedriver here: apt-get install chromium chromium-driver")
    webdriver = pytest.importorskip("selenium.webdriver", reason="no selenium here: pip install selenium")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", *arguments):
        options.add_argument(argument)
    for name, value in capabilities.items():
        options.set_capability(name, value)
    opened = webdriver.Chrome(options, webdriver.ChromeService(driver))
    try:
        yield opened
    finally:
        opened.quit()
