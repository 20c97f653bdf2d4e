"""Read a list that may change during the read (`overlap`), prove that nothing is missing, or split it by days (`reader`).

Import direction: `reader` > `plain` > `overlap` > `proof` > `page` > `window`; `reader` > `balance` > `page`. No module here
knows HTTP: each page comes from a function that the caller passes in.

# How completeness is proven

The API pages by offset: `offset=200` skips the first 200 sessions of the list as it is now. When a session is added or
removed between two requests, all later sessions move, and the next page repeats a session or skips one. No response
shows that. So every page of this library starts five sessions before the previous page ended, and the overlap shows
whether the list moved. The pages prove that no session is missing if four conditions hold:

- **(a) Order.** The sessions of every page are sorted by `plug_in_time`, in the same direction. At least 50 sessions show
  it, because fewer may be sorted by chance.
- **(b) Overlap.** Each page starts before the previous page ended, both pages list mostly the same sessions in their
  overlap, and the overlap is about as long as the two offsets say.
- **(c) Both ends.** The first page has offset 0. The last page ends at `total` and is not full.
- **(d) Balance.** The distinct sessions are as many as the largest `total` that any page stated.

`_paging.proof` gives the argument, its assumptions about the server, and the one case that cannot be checked. It holds
for pages that were read in any order, so they are requested concurrently.

If a condition does not hold, the list is read again, a limited number of times:

1. If a page's `total` contradicts its rows, the page is requested again, since a session may have been removed before
   the server counted.
2. If a page leaves a gap, the list is read again from a little further back.
3. If sessions are missing from the balance, the newest page is read again, then the whole list, up to three times. A
   list that grows all the time must have, after three passes, the sessions that were counted before the last of them.
4. If the overlapping pages still prove nothing, the window is split by days. A window that fits on one page needs no
   order, because one response shows the list at one moment. The days together have to balance with the whole window. So
   a list is proven, too, if the server refuses large offsets, or fails or takes too long on them after all attempts.
5. If the days prove nothing either, the list is paged plainly to its end, so that an unproven read has at least the
   sessions of plain offset paging.

The verdict is part of the result:

- `VERIFIED`: every session that existed throughout the read is there, once.
- `REPAIRED`: the same holds, after parts of the list were read again or the window was split by days.
- `UNPROVEN`: sessions may be missing. `reason` says why. For example, one day has more sessions than a page and no order,
  or the pages list fewer sessions than the server counts.

# Costs

A list of fewer than 200 sessions costs 1 request, and a list of exactly 200 costs 2, since a full page may be cut off. A
list of 5,000 sessions that does not change costs 26 requests instead of 25. If a session is added at the newest end
during the read, it usually costs 1 more. If sessions are removed, or added elsewhere, the list may be read twice. A list
without order costs about 1.5 times the requests of plain paging.
"""
