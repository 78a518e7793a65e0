// Browsers start no Worker in a page that lies at file://, so that its search would find nothing. This class stands in
// for Worker there: the script runs in a hidden frame, and the frame's window is its global scope. The theme looks for
// the class by this name, and waits for what importScripts returns.
"use strict";

class IFrameWorker extends EventTarget {
  constructor(address) {
    super();
    this.onmessage = null;
    this.onerror = null;
    this.frame = document.body.appendChild(document.createElement("iframe"));
    this.frame.hidden = true;
    // An empty document of its own: some browsers replace the first one later, with all that was put into it.
    this.scope.document.open();
    this.scope.document.write("<!doctype html><body>");
    this.scope.document.close();
    this.scope.postMessage = (data) => this.report("message", { data: structuredClone(data) }, MessageEvent);
    this.scope.importScripts = async (...addresses) => {
      for (const each of addresses) await this.run(each);
    };
    this.scope.onerror = (message, filename, lineno, colno, error) =>
      this.report("error", { message, filename, lineno, colno, error }, ErrorEvent);
    this.started = this.run(address);
    this.started.catch((error) => this.report("error", { message: error.message, error }, ErrorEvent));
  }

  get scope() {
    return this.frame.contentWindow;
  }

  run(address) {
    return new Promise((resolve, reject) => {
      const script = this.scope.document.createElement("script");
      script.onload = () => resolve();
      script.onerror = () => reject(new Error(`${address} cannot be loaded`));
      script.src = address;
      this.scope.document.body.append(script);
    });
  }

  report(kind, contents, Kind) {
    const event = new Kind(kind, contents);
    this.dispatchEvent(event);
    this[`on${kind}`]?.(event);
  }

  async postMessage(data) {
    await this.started;
    this.scope.dispatchEvent(new this.scope.MessageEvent("message", { data: structuredClone(data) }));
  }

  terminate() {
    this.frame.remove();
  }
}

window.IFrameWorker = IFrameWorker;
if (location.protocol === "file:") window.Worker = IFrameWorker;
