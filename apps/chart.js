// Draws every chart of the site (Chart in apps/components.py): in place, once for each new figure, never while nobody
// sees it, and what is scrolled out of sight only when the slider has come to rest.
(() => {
  let asked;

  // Plotly is large. The first chart asks for it, when the page's text stands there already.
  function plotly() {
    asked ??= new Promise((done, failed) => requestAnimationFrame(() => setTimeout(() => {
      const script = document.createElement("script");
      script.src = "PLOTLY";
      script.onload = done;
      script.onerror = () => { asked = undefined; failed(); };
      document.head.append(script);
    })));
    return asked;
  }

  const REST = 200;  // milliseconds without a new figure

  // Charts take their turns, a frame for each: the first is seen before the next is drawn.
  let turn = Promise.resolve();
  function inTurn(draw) {
    turn = turn.then(draw).catch(console.error).then(() => new Promise(requestAnimationFrame));
  }

  function outOfSight(place) {
    const { top, bottom } = place.getBoundingClientRect();
    return bottom < 0 || top > window.innerHeight;
  }

  window.drawChart = (element, props, watch) => {
    const place = element.querySelector(".chart");
    let shown = "", width = 0, later;

    function drawOrWait() {
      clearTimeout(later);
      if (shown && outOfSight(place)) later = setTimeout(draw, REST);
      else inTurn(draw);
    }

    async function draw() {
      const figure = props.value || "";
      place.classList.toggle("empty", !figure);
      if (!place.offsetWidth || (figure === shown && place.offsetWidth === width)) return;
      if (!figure) {
        if (shown) Plotly.purge(place);
        shown = "";
        return;
      }
      const { data, layout } = JSON.parse(figure);
      place.style.minHeight = `${layout.height}px`;  // so that nothing jumps when the chart comes
      try {
        await plotly();
      } catch {
        place.textContent = "The chart cannot be drawn: the server did not give Plotly's script. Is it still running? "
          + "Load the page again.";
        return;
      }
      if (figure !== props.value) return;  // a newer one has come meanwhile
      if (!shown) place.textContent = "";
      shown = figure;
      width = place.offsetWidth;
      await Plotly.react(place, data, { ...layout, width }, { displaylogo: false });
      place.classList.add("drawn");
    }

    watch("value", drawOrWait);
    new ResizeObserver(draw).observe(place);  // which also tells when a tab or a fold is opened
  };
})();
