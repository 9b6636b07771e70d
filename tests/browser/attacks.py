"""How a page makes a browser send a request. Each is the body of an async JavaScript function.

`url` is what to call. What a function returns is what the page could read of the answer. It ends
when the page knows an outcome; of a beacon, a ping, a report or a window it never does.
"""

from __future__ import annotations

from typing import Final

# What the functions use. STRANGER is the origin of the page's own server.
HELPERS: Final = """
const text = async (answering) => (await answering).text();
const outcome = (thing) => new Promise((done) => {
    for (const name of ["load", "error", "open"]) thing.addEventListener(name, done);
});
const make = (tag, attributes) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
};
const put = (tag, attributes) => {
    const element = make(tag, attributes);
    const end = outcome(element);
    document[tag === "link" ? "head" : "body"].append(element);
    return end;
};
const frame = async (attributes, begin = () => {}) => {
    const element = make("iframe", {name: `frame${document.querySelectorAll("iframe").length}`});
    document.body.append(element);      // an empty document, loaded at once
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    const end = outcome(element);
    begin(element.name);
    await end;
    try { return element.contentDocument.body.textContent; } catch { return ""; }
};
const submit = (target, attributes) => {
    const form = make("form", {target, ...attributes});
    form.append(make("input", {type: "hidden", name: '{"a": "', value: '"}'}));
    document.body.append(form);
    form.submit();
};
const post = (url, more) =>
    frame({}, (name) => submit(name, {action: url, method: "post", ...more}));
const xhr = (method, url) => new Promise((done) => {
    const request = new XMLHttpRequest();
    request.onloadend = () => done(request.responseText);
    request.open(method, url);
    request.send("a=b");
});
const json = {method: "POST", headers: {"Content-Type": "application/json"}, body: '{"a": "b"}'};
const blind = {mode: "no-cors"};
const blindPost = {mode: "no-cors", method: "POST", body: '{"a": "b"}'};
const detour = (url) => `${STRANGER}/redirect?to=${encodeURIComponent(url)}`;
"""

ATTACKS: Final = {
    "fetch": "return text(fetch(url));",
    "fetch-with-cookies": "return text(fetch(url, {credentials: 'include'}));",
    "fetch-no-cors": "return text(fetch(url, blind));",
    "fetch-no-referrer": "return text(fetch(url, {...blind, referrerPolicy: 'no-referrer'}));",
    "fetch-redirected": "return text(fetch(detour(url), blind));",
    "fetch-head": "return text(fetch(url, {...blind, method: 'HEAD'}));",
    "fetch-delete": "return text(fetch(url, {method: 'DELETE'}));",
    "fetch-post": "return text(fetch(url, {method: 'POST', body: 'a=b'}));",
    "fetch-post-json": "return text(fetch(url, json));",
    "fetch-post-no-cors": "return text(fetch(url, blindPost));",
    "fetch-post-keepalive": "return text(fetch(url, {...blindPost, keepalive: true}));",
    "fetch-post-redirected": "return text(fetch(detour(url), blindPost));",
    "xhr": "return xhr('GET', url);",
    "xhr-post": "return xhr('POST', url);",
    "beacon": "navigator.sendBeacon(url, '{}');",
    "event-source": "await outcome(new EventSource(url));",
    "websocket": "await outcome(new WebSocket(url.replace('http', 'ws')));",
    "worker": """
        const source = `try { importScripts("${url}"); } catch {} postMessage(0);`;
        const worker = new Worker(URL.createObjectURL(new Blob([source])));
        await new Promise((done) => { worker.onmessage = done; });
    """,
    "image": "await put('img', {src: url});",
    "image-redirected": "await put('img', {src: detour(url)});",
    "script": "await put('script', {src: url});",
    "script-module": "await put('script', {src: url, type: 'module'});",
    "stylesheet": "await put('link', {rel: 'stylesheet', href: url});",
    "style-image": "document.body.style.backgroundImage = `url(${url})`;",
    "font": "await new FontFace('f', `url(${url})`).load();",
    "video": "await put('video', {src: url});",
    "object": "await put('object', {data: url});",
    "embed": "put('embed', {src: url});",
    "icon": "put('link', {rel: 'icon', href: url});",
    "manifest": "put('link', {rel: 'manifest', href: url});",
    "prefetch": "await put('link', {rel: 'prefetch', href: url});",
    "preload": "await put('link', {rel: 'preload', as: 'fetch', href: url});",
    "preload-module": "await put('link', {rel: 'modulepreload', href: url});",
    "ping": "make('a', {href: '#', ping: url}).click();",
    "policy-report": "frame({src: `${STRANGER}/reporting?to=${encodeURIComponent(url)}`});",
    "iframe": "return frame({src: url});",
    "iframe-no-referrer": "return frame({referrerpolicy: 'no-referrer', src: url});",
    "iframe-sandboxed": "return frame({sandbox: 'allow-forms allow-scripts', src: url});",
    "iframe-redirected": "return frame({src: detour(url)});",
    "iframe-refreshed": """
        return frame({srcdoc: `<meta http-equiv="refresh" content="0;url=${url}">`});
    """,
    "iframe-data": """
        const form = `<form method="post" action="${url}"></form>`;
        return frame({src: `data:text/html,${form}<script>document.forms[0].submit()</script>`});
    """,
    "form": "return frame({}, (name) => submit(name, {action: url}));",
    "form-post": "return post(url);",
    "form-post-json": "return post(url, {enctype: 'text/plain'});",
    "form-post-multipart": "return post(url, {enctype: 'multipart/form-data'});",
    "form-post-redirected": "return post(detour(url));",
    "window": "open(url);",
    "window-no-referrer": "open(url, '_blank', 'noopener,noreferrer');",
    "window-redirected": "open(detour(url));",
    "window-form-post": "submit('_blank', {action: url, method: 'post'});",
}

POSTS: Final = [
    name
    for name in ATTACKS
    if "post" in name or name in {"beacon", "iframe-data", "ping", "policy-report"}
]
# What can tell a page the text of an answer. (A form without POST replaces the query.)
READS: Final = [
    name for name, body in ATTACKS.items() if "return " in body and name not in {"form", *POSTS}
]
