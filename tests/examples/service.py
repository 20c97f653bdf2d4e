"""A backend: one client for the application's lifetime, shared by all request handlers."""

from collections.abc import AsyncIterator

from aiohttp import web

from podero_async import NotFoundError, PoderoClient, PoderoError

CLIENT = web.AppKey("client", PoderoClient)


async def one_client(app: web.Application) -> AsyncIterator[None]:
    """Open the client when the application starts, and close it when the application stops."""
    async with PoderoClient.from_env() as app[CLIENT]:
        yield


async def live(request: web.Request) -> web.Response:
    """Return whether a vehicle is charging now."""
    user_id, vehicle_id = request.match_info["user_id"], request.match_info["vehicle_id"]
    try:
        session = await request.app[CLIENT].current_session(user_id, vehicle_id)
    except NotFoundError:
        raise web.HTTPNotFound from None
    except PoderoError:  # its text names ids and paths, which an end user must not see
        raise web.HTTPServiceUnavailable from None
    except ValueError:
        raise web.HTTPUnprocessableEntity(text="an id is not a uuid") from None
    return web.json_response({"charging": session is not None})


def make_app() -> web.Application:
    """Build the application."""
    app = web.Application()
    app.cleanup_ctx.append(one_client)
    app.router.add_get("/users/{user_id}/vehicles/{vehicle_id}/live", live)
    return app
