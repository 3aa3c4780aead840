// The page: sends a photo, waits for its frames, plays them, fetches downloads. The session's key is only here, in
// memory: it is in no address and no cookie, so no other page can use it.
'use strict';
(() => {
  const $ = id => document.getElementById(id);
  const screen = $('screen'), ink = screen.getContext('2d');
  const state = { session: null, offer: null, photo: null, frames: [], blurry: null, at: 0, step: 1, playing: false,
    turn: 0 };  // turn: which photo answers belong to
  const pressed = id => $(id).getAttribute('aria-pressed') === 'true';
  const status = text => { $('status').textContent = text; };

  function problem(what, remedy) {
    const said = what ? what[0].toUpperCase() + what.slice(1) + '.' : '';
    $('problem').textContent = said + (remedy ? ` To mend it: ${remedy}.` : '');
    $('problem').hidden = !what;
    if (what) { status(''); busy(false); }
  }

  function busy(is) {
    $('busy').hidden = !is;
    $('again').disabled = is || !state.photo;
  }

  async function call(path, options = {}) {
    let answer;
    try {
      answer = await fetch('api/' + path, { ...options, headers: { 'X-Hypercut': state.session || 'new' } });
    } catch {
      throw { what: 'the server does not answer', remedy: 'see whether it still runs, then try again' };
    }
    if (answer.ok) return answer;
    let told = {};
    try { told = await answer.json(); } catch { /* no reason was given */ }
    throw { status: answer.status, what: told.what || `the server refused this (${answer.status})`,
      remedy: told.remedy };
  }

  async function begin() {
    state.session = (await (await call('session', { method: 'POST' })).json()).session;
  }

  async function send(photo) {
    const words = new URLSearchParams({ model: $('model').value, side: $('side').value, careful: $('careful').value });
    if (!state.session) await begin();
    try {
      await call('photo?' + words, { method: 'POST', body: photo });
    } catch (error) {
      if (error.status !== 410) throw error;
      await begin();  // the old session has run out: a new one for the new photo
      await call('photo?' + words, { method: 'POST', body: photo });
    }
  }

  async function restore(photo) {
    const turn = ++state.turn;
    state.photo = photo;
    problem('');
    if (!state.offer) return problem('the page is not ready yet', 'try again');
    if (photo.size > state.offer.maxBytes) {
      return problem(`${photo.name} has ${mebibytes(photo.size)}, and ${mebibytes(state.offer.maxBytes)} are allowed`,
        'choose a smaller photo');
    }
    busy(true);
    status('Sending the photo …');
    let sent = false;
    try {
      await send(photo);
      sent = true;
      const done = await finished(turn);
      if (!done) return;
      const pictures = await Promise.all([...Array(done.frames + 1).keys()].map(n => fetchFrame(n)));
      if (turn === state.turn) show(pictures, done);
    } catch (error) {
      if (turn !== state.turn) return;
      if (sent) $('result').hidden = true;  // the server has given up the film before it
      problem(error.what || String(error), error.remedy);
    }
  }

  async function finished(turn) {
    for (;;) {
      const now = await (await call('state')).json();
      if (turn !== state.turn) return null;
      if (now.stage === 'done') return now;
      if (now.stage === 'failed') throw now;
      const line = now.ahead === 1 ? 'One photo is' : `${now.ahead} photos are`;
      status(now.ahead ? `${line} before yours …` : 'Restoring the photo …');
      await new Promise(go => setTimeout(go, 200));
    }
  }

  async function fetchFrame(n) {
    return createImageBitmap(await (await call('frame/' + n)).blob());
  }

  function show(pictures, done) {
    for (const old of [...state.frames, state.blurry]) if (old) old.close();
    [state.blurry, ...state.frames] = pictures;
    [screen.width, screen.height] = [done.width, done.height];
    $('count').value = done.frames;
    $('wipe').value = 0;
    $('before').setAttribute('aria-pressed', 'false');
    Object.assign(state, { at: 0, step: 1, playing: !matchMedia('(prefers-reduced-motion: reduce)').matches });
    $('result').hidden = false;
    busy(false);
    status(`Done: ${done.frames} frames of ${done.width} by ${done.height} pixels.`);
    draw();
  }

  const count = () => Math.min(Number($('count').max), Math.max(1, Math.round(Number($('count').value)) || 1));

  // The moment of a frame, in units of the recovered frames' distance: as in hypercut_core/animation.py.
  function moment() {
    const last = state.frames.length - 1, shown = count();
    const time = shown > 1 ? last * state.at / (shown - 1) : last / 2;
    return pressed('reverse') ? last - time : time;
  }

  function draw() {
    if (!state.blurry) return;
    const shown = count(), time = moment(), before = Math.floor(time), share = time - before;
    const covered = pressed('before') ? 1 : $('wipe').value / 100;
    ink.globalAlpha = 1;
    ink.drawImage(state.frames[before], 0, 0);
    if (share > 1e-6) {
      ink.globalAlpha = share;
      ink.drawImage(state.frames[before + 1], 0, 0);
      ink.globalAlpha = 1;
    }
    const width = Math.round(screen.width * covered);
    if (width) ink.drawImage(state.blurry, 0, 0, width, screen.height, 0, 0, width, screen.height);
    if (width && covered < 1) {
      ink.fillStyle = '#fff';
      ink.fillRect(width - 1, 0, 2, screen.height);
    }
    $('moment').max = shown;
    $('moment').value = state.at + 1;
    $('shown').textContent = `frame ${state.at + 1} of ${shown}`;
    $('wiped').textContent = `${Math.round(100 * covered)} %`;
    $('play').textContent = state.playing ? 'Pause' : 'Play';
    const said = `frame ${state.at + 1} of ${shown}`;
    if (!state.playing) {  // else a screen reader would hear nothing but numbers
      $('moment').setAttribute('aria-valuetext', said);
      screen.setAttribute('aria-label', covered === 1 ? 'The blurry photo' : `The recovered film, ${said}`);
    }
  }

  function advance() {
    if (state.playing && !document.hidden && state.blurry) {
      const last = count() - 1;
      if (!pressed('bounce')) state.step = 1;
      if (pressed('bounce') && (state.at + state.step > last || state.at + state.step < 0)) state.step = -state.step;
      state.at = last ? (state.at + state.step + last + 1) % (last + 1) : 0;
      draw();
    }
    setTimeout(advance, 1000 / Number($('fps').value || 10));
  }

  async function download(button) {
    const kind = button.dataset.kind, flag = id => pressed(id) ? 1 : 0;
    const words = new URLSearchParams({ frames: count(), fps: $('fps').value, reverse: flag('reverse'),
      bounce: flag('bounce') });
    problem('');
    button.disabled = true;
    status(`Making the ${kind.toUpperCase()} …`);
    try {
      const link = document.createElement('a');
      link.href = URL.createObjectURL(await (await call(`film/${kind}?${words}`)).blob());
      link.download = `${state.photo.name.replace(/\.[^.]*$/, '') || 'photo'}-restored.${kind}`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60000);
      status(`${link.download} is ready.`);
    } catch (error) {
      problem(error.what || String(error), error.remedy);
    }
    button.disabled = false;
  }

  const mebibytes = bytes => `${(bytes / 2 ** 20).toFixed(bytes < 2 ** 20 ? 2 : 0)} MiB`;

  function toggle(id) {
    $(id).addEventListener('click', () => {
      $(id).setAttribute('aria-pressed', String(!pressed(id)));
      draw();
    });
  }

  function chosen(files) {
    if (files && files.length) restore(files[0]);
  }

  function listen() {
    $('photo').addEventListener('change', () => chosen($('photo').files));
    $('again').addEventListener('click', () => state.photo && restore(state.photo));
    $('play').addEventListener('click', () => { state.playing = !state.playing; draw(); });
    $('moment').addEventListener('input', () => {
      state.playing = false;
      state.at = Number($('moment').value) - 1;
      draw();
    });
    $('wipe').addEventListener('input', () => { $('before').setAttribute('aria-pressed', 'false'); draw(); });
    $('count').addEventListener('input', () => { state.at = Math.min(state.at, count() - 1); draw(); });
    $('count').addEventListener('change', () => { $('count').value = count(); draw(); });
    ['reverse', 'bounce', 'before'].forEach(toggle);
    document.querySelectorAll('.download').forEach(one => one.addEventListener('click', () => download(one)));
    addEventListener('dragover', event => {
      event.preventDefault();
      document.body.classList.add('dropping');
    });
    addEventListener('dragleave', event => {
      if (!event.relatedTarget) document.body.classList.remove('dropping');
    });
    addEventListener('drop', event => {
      event.preventDefault();
      document.body.classList.remove('dropping');
      chosen(event.dataTransfer.files);
    });
    addEventListener('paste', event => chosen(event.clipboardData.files));
    addEventListener('pagehide', () => {
      if (state.session) {
        fetch('api/session', { method: 'DELETE', keepalive: true, headers: { 'X-Hypercut': state.session } });
      }
    });
    addEventListener('pageshow', event => { if (event.persisted) location.reload(); });
  }

  function option(select, value, text) {
    const made = document.createElement('option');
    [made.value, made.textContent] = [value, text];
    $(select).append(made);
  }

  async function start() {
    listen();
    try {
      const offer = await (await call('offer')).json();
      for (const model of offer.models) option('model', model.key, model.label);
      for (const side of offer.sides) option('side', side, `up to ${side} pixels`);
      for (const fps of offer.played) option('fps', fps, fps);
      $('fps').value = 10;
      $('count').max = offer.mostFrames;
      $('limits').textContent += ` At most ${mebibytes(offer.maxBytes)}.`;
      state.offer = offer;
    } catch (error) {
      problem(error.what || String(error), error.remedy);
    }
    setInterval(() => { if (state.session) call('state').catch(() => {}); }, 60000);
    advance();
  }
  start();
})();
