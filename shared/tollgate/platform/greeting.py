"""What a person should know once Tollgate runs, and do next."""


def greeting(url: str, open_to_all: bool) -> str:
    """The text.

    Args:
        url: where it answers.
        open_to_all: whether requests need no key.
    """
    key = "" if open_to_all else " \\\n    -H 'Authorization: Bearer '\"$TOLLGATE_KEY\""
    access = (
        "No access key is configured: served on 127.0.0.1 only, namespace `default`."
        if open_to_all
        else "Requests need an access key: export TOLLGATE_KEY=tg_..."
    )
    return f"""
Tollgate runs at {url}
{access}

Send an event:

  curl -i {url}/api/v1/events{key} \\
    -H 'Content-Type: application/cloudevents+json' \\
    -d '{{"specversion":"1.0","id":"'$(date +%s%N)'","source":"quickstart","type":"prompt",
         "subject":"customer-1","data":{{"tokens":42,"model":"gpt-5","type":"input"}}}}'

See it counted:

  curl '{url}/api/v1/meters/tokens_total/query?groupBy=model'{key}

Or send two months of sample usage:  .venv/bin/tollgate demo --url {url}
End with Ctrl-C.
"""
