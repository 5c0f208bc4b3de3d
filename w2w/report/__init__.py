"""Pages: one visual language, parts that all of them share, and where they lie.

A page of a room is a template, ``{% extends "report/base.html.j2" %}`` with a block ``content``, and a ``page.py`` that
prepares plain values and calls ``write_page``. The base brings the style, light and dark: four sizes of type (``--small``,
``--text``, ``--head``, ``--title``), one colour to point at things (``--accent``, class ``ok``), one to warn (``--warn``,
class ``no``), multiples of 8 px, hairlines. A page of yours names no other size and no other colour.

Parts, by ``{% from "report/parts.html.j2" import picture, product %}``:

- ``product(card)``: a card, of ``cards.product_card(row, picture, mark=..., notes=[...])``. Cards stand in a
  ``<div class="cards">``. ``mark`` is for the answer that was sought alone: a tick, a frame and words. ``more`` and
  ``others``: products that it stands for as well, of ``variants.on_cards``.
- ``picture(image, alt)``: any other picture, enlarged at a click; ``image`` is what ``page.thumbnail`` gives.
- ``composition(pieces)``: an outfit, of ``cards.Piece``: top above bottom above shoes, a dress across two rows.
- ``short_id(id)``, ``fact_list(facts)``, ``tile_list(headline)``, ``interval(row)``; class ``bar`` with ``button``.

The same picture may be used as often as you like: ``write_page`` stores it once, and makes all of them smaller where a page
would be over 3 MB. Everything is escaped; ``cards.web_link`` lets only http(s) through to an ``href``.

Names: ``page.page_of(store, job, run_id)`` is <store>/reports/<job>/<run>/index.html, and ``write_page`` copies what is
written there to <store>/reports/<job>/latest.html.
"""
