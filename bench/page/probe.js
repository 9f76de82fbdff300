// What the page is asked while it is measured. Installed before its own scripts.
{
  const found = { shifts: 0, firstByte: 0, firstSeen: 0 }
  window.probe = found

  // The first bytes that carry text; afterwards nothing stands between the page and its stream.
  const prototype = ReadableStreamDefaultReader.prototype
  const read = prototype.read
  const decoder = new TextDecoder()
  found.await = () => {
    found.firstByte = found.firstSeen = 0
    prototype.read = function () {
      return read.call(this).then((result) => {
        if (!result.done && decoder.decode(result.value).includes('event: text')) {
          found.firstByte = performance.now()
          prototype.read = read
        }
        return result
      })
    }
    const said = '[data-testid=answer]:last-of-type [data-testid=text]'
    const look = new MutationObserver(() => {
      if (!found.firstByte || !document.querySelector(said)?.textContent) return
      look.disconnect()
      // The frame that shows it ends before the next one begins.
      requestAnimationFrame(() => (found.firstSeen = performance.now()))
    })
    look.observe(document.body, { subtree: true, childList: true, characterData: true })
  }

  // From a key to the frame that shows it: a task behind the frame's own is behind its paint.
  found.watchKeys = () => {
    const channel = new MessageChannel()
    channel.port1.onmessage = () => performance.mark('bench.painted')
    addEventListener(
      'keydown',
      () => {
        performance.mark('bench.key')
        requestAnimationFrame(() => channel.port2.postMessage(null))
      },
      { capture: true },
    )
  }

  found.watchShifts = () => {
    found.shifts = 0
    new PerformanceObserver((list) => {
      for (const { value } of list.getEntries()) found.shifts += value
    }).observe({ type: 'layout-shift' })
  }

  // Headless pages are always visible: whether one is hidden is said here.
  let isHidden = false
  Object.defineProperty(Document.prototype, 'hidden', { get: () => isHidden })
  found.hide = (hidden) => {
    isHidden = hidden
    document.dispatchEvent(new Event('visibilitychange'))
  }
}
