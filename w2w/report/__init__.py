"""Pages: one visual language, shared parts, and their location.

A page of a room is a template, ``{% extends "report/base.html.j2" %}`` with a block ``content``, and a ``page.py`` that
prepares plain values and calls ``write_page``. The base brings the style, light and dark: four sizes of type (``--small``,
``--text``, ``--head``, ``--title``), one accent colour (``--accent``, class ``ok``), one for warnings (``--warn``, class
``no``), multiples of 8 px, hairlines. Pages use no other sizes or colours.

Parts, by ``{% from "report/parts.html.j2" import picture, product %}``:

- ``product(card)``: a card, from ``cards.product_card(row, picture, mark=..., notes=[...])``. Cards go in a
  ``<div class="cards">``, or side by side in one row: ``line(cards)``. What was found says ``notes=cards.ranked(rank, score)``.
  ``mark`` is only for the answer that was sought: a tick, a frame and words. ``more`` and
  ``others``: further products that it stands for, from ``variants.on_cards``.
- ``picture(image, alt)``: any other picture, enlarged at a click; ``image`` comes from ``page.thumbnail``.
- ``composition(pieces)``: an outfit, from ``cards.Piece``: top above bottom above shoes, a dress across two rows.
  Several stand in figures in a ``<div class="sets">``, two by two on a phone.
- ``short_id(id)``, ``fact_list(facts)``, ``tile_list(headline)``, ``interval(row)``; class ``bar`` with ``button``; filter
  ``explained``: what figures of these names are; class ``shape``: bars that repeat a number, which a phone leaves out.

A picture may be used any number of times: ``write_page`` stores it once, and shrinks all pictures of a page over 3 MB.
Everything is escaped; ``cards.web_link`` lets only http(s) through to an ``href``.

Names: ``page.page_of(store, job, run_id)`` is <store>/reports/<job>/<run>/index.html, and ``write_page`` copies what is
written there to <store>/reports/<job>/latest.html.
"""
