import { mount } from 'svelte'
import { Api } from './api.ts'
import App from './App.svelte'
import './app.css'
import { Conversation } from './conversation.svelte.ts'
import { Panel } from './panel/panel.svelte.ts'
import { Preferences } from './preferences.svelte.ts'
import { browserWorld } from './stream/world.ts'

const world = browserWorld()
const api = new Api(world)
const conversation = new Conversation(api, world)
const panel = new Panel(api, world, conversation)
mount(App, {
  target: document.body,
  props: { conversation, panel, preferences: new Preferences() },
})
