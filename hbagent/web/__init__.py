"""Pages, JSON and a live feed for browsers and scrapers: read-only HTTP/1.1 by hand, on asyncio, in one thread.

It knows no core and no socket but its own. What it shows it asks from a `site.Source`, in JSON, as a console would.
"""
