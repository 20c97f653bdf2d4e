"""Read a list that may change during the read, and prove that nothing is missing from the result.

`reader` imports `overlap`, which imports `proof`, which imports `page`. No module here knows HTTP: each page comes from
a function that the caller passes in.

# How completeness is proven

The API pages by offset: `offset=200` skips the first 200 sessions of the list as it is now. When a session is added or
removed between two requests, all later sessions move, and the next page repeats a session or skips one. No response
shows that. So every page of this library starts five sessions before the previous page ended, and the overlap shows
whether the list moved. The pages prove that no session is missing if three conditions hold:

- **(a) Order.** The sessions of every page are sorted by `plug_in_time`, in the same direction. At least 50 sessions show
  it, because fewer may be sorted by chance.
- **(b) Overlap.** Each page starts before the previous page ended, both pages list mostly the same sessions in their
  overlap, and the overlap is about as long as the two offsets say.
- **(c) Both ends.** The first page has offset 0. The last page ends at `total` and is not full.

`_paging.proof` gives the argument. It holds for pages that were read in any order, so they are requested concurrently.

If a page leaves a gap, the list is read again from a little further back, a limited number of times. If the overlapping
pages still prove nothing, the window is split by days. A list that fits on one page needs no order, because one response
shows the list at one moment. The verdict is part of the result:

- `VERIFIED`: every session that existed throughout the read is there, once.
- `REPAIRED`: the same holds, after parts of the list were read again or the window was split by days.
- `UNPROVEN`: sessions may be missing. For example, one day has more sessions than a page and no order, or a `total`
  contradicts the page that states it.

A list of up to one page costs 1 request. A list of 5,000 sessions that does not change costs 26 requests instead of 25.

A verdict is as good as these assumptions about the server:

- The sessions of a page are consecutive in the list at one moment, and `total` is the length of the list at that moment.
- If the pages are sorted by plug-in time, so is the list. A list sorted by the time of the last change can look the same,
  and nothing compares the number of distinct sessions with `total` yet, which would show the difference.
- `from` and `to` are inclusive, so the windows of a split together list every session of the whole window.
- No session gets another `plug_in_time` during the read.
"""
