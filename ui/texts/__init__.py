"""The words of the pages: each page's module has `ENGLISH` and `CHINESE` of the same keys. `ui.i18n` joins them."""
