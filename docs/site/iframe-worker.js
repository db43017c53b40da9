// Search works in a worker, which browsers refuse to pages that were opened as files: there, a hidden frame takes its place.
if (location.protocol === "file:") {
  const run = (frame, url) =>
    new Promise((done, failed) => {
      const script = frame.contentDocument.createElement("script");
      Object.assign(script, { src: new URL(url, document.baseURI).href, onload: done, onerror: failed });
      frame.contentDocument.body.append(script);
    });
  window.IFrameWorker = window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = Object.assign(document.createElement("iframe"), { hidden: true, tabIndex: -1 });
      document.body.append(frame);
      const inside = (this.inside = frame.contentWindow);
      inside.importScripts = (...urls) => urls.reduce((before, each) => before.then(() => run(frame, each)), Promise.resolve());
      inside.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      this.ready = run(frame, url);
    }
    postMessage(data) {
      this.ready.then(() => this.inside.dispatchEvent(new MessageEvent("message", { data })));
    }
  };
}
