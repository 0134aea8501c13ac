"""Runs on the client host: reads the API through the floating IP and prints what it says, one JSON object a line.

Standard library only. Settings come as one JSON object in argv[1]: host, token, ca (file), path, rows (the key of the
list in each answer; empty: print the answer itself), next (the answer's key that continues the list; null ends it),
parameter (the query parameter that takes it), start (its first value, or null), post (body for a POST, or null), deadline_s.
With paths (a list) instead of path each of them is asked, with the deadline for each, and what does not exist (404) is null.
A 503 or a broken connection is tried again until the deadline: a switch may be under way.
"""

import http.client
import json
import ssl
import sys
import time


def ask(settings, path):
    end = time.monotonic() + settings["deadline_s"]
    context = ssl.create_default_context(cafile=settings["ca"])
    context.check_hostname = False
    said = "nothing"
    while time.monotonic() < end:
        try:
            c = http.client.HTTPSConnection(settings["host"], 443, timeout=10, context=context)
            body = settings["post"]
            headers = {"Authorization": f"Bearer {settings['token']}", "Content-Type": "application/json"}
            c.request("GET" if body is None else "POST", path, body=body, headers=headers)
            answer = c.getresponse()
            text = answer.read()
            c.close()
            if answer.status < 300:
                return json.loads(text)
            if answer.status == 404 and "paths" in settings:
                return None
            said = f"{answer.status} {text[:500]!r}"
            if answer.status < 500:
                break
        except (OSError, http.client.HTTPException) as e:
            said = repr(e)
        time.sleep(0.1)
    sys.exit(f"{path}: {said}")


def main():
    settings = json.loads(sys.argv[1])
    if "paths" in settings:
        for path in settings["paths"]:
            print(json.dumps(ask(settings, path)))
        return
    path = settings["path"]
    following = settings["start"]
    while True:
        more = ""
        if following is not None:
            more = f"{'&' if '?' in path else '?'}{settings['parameter']}={following}"
        answer = ask(settings, path + more)
        if not settings["rows"]:
            print(json.dumps(answer))
            return
        for row in answer[settings["rows"]]:
            print(json.dumps(row))
        following = answer.get(settings["next"])
        if following is None:
            return


main()
